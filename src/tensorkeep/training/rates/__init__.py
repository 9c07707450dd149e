"""Learning rates by hand: what each of torch's schedulers keeps a rate in, and how it is changed.

`arguments` reads what was asked for, `kinds` knows torch's classes. A schedule with a new base is
`replayed` from its first step on a shadow of the optimizer; `scaling`, `plateau` and `custom` are
for what cannot be. All of them only plan: `changes` makes the changes, all or none. The face is
`training.learning_rate`; `saved` does the same to a checkpoint on disk.
"""
