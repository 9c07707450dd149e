"""What can happen to a tensor on its way from one checkpoint to another.

Edits change values (a cast), and later names and shapes; they know dtypes and bytes, not files,
formats or models. The verbs call this room; numpy is imported when values are computed, not when
the room is imported.
"""
