"""Checkpoints over time: what is saved, when it is kept, how a run goes on, and the proof of it.

`run` is the face. `tracking` knows objects that have state and turns each into tensors and JSON;
`snapshot` copies tensors into memory that is reused, `saving` brings them to disk in a thread;
`keeping` says which checkpoints stay. The layout on disk, which needs no torch, is
`checkpoints.runs`, and what makes it whole or absent is `stores.commit`.
"""
