"""Two inventories in; pairs, misses and the smallest rule list that fits them out.

For `match` names, shapes and dtypes are enough: no tensor is read, no module is built, no torch is
needed. `finding.find` is the search; `pairing` says which is which, `inducing` makes rules of that.
For `diff`, `sides` puts two checkpoints under shared names, `renames` reads bytes to find tensors
under others, and `changes` are the records of what it found.
The verb `match` and `load_into` call this room; `live` hands it what a module wants.
"""
