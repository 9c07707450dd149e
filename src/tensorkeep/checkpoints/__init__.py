"""An opened checkpoint: names over bytes that stay where they are, and the way to write one.

`opening.open_checkpoint` reads an index through `formats`; `Checkpoint` and `TensorRef` hand out
tensors; `writing` streams tensors into a new file. Every verb works on these; none of them
knows how a format lays out its bytes.
"""
