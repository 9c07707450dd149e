"""Tensors in this process: a checkpoint's bytes become torch's tensors. Torch lives here.

`loading` is the verb. `tensors` makes tensors of records and `nesting` the value that a file
holds, both out of `storages`: byte ranges in private memory (`arenas`, laid out by `placing`) or in
a mapping of the file (`mapping`). `devices` says where each tensor goes, and takes it there.

`whole` makes a model of classes that the caller names, `guarding` takes over the loads of a program
(`hooks` into torch, `guarded` is what it gets instead, `held` says which guard counts). Both ask
`trusting` what may be made, and have it made by `building`.

`dequantising` makes floats of int8 codes for a module that wants floats; `int8` has the layers that
take the codes.
"""
