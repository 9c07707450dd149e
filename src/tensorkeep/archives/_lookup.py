"""Which of several members of one name torch's own reader takes.

torch asks miniz for a name regardless of the case of ASCII letters. miniz heap-sorts the
directory by lowered name and searches by halves, so among equal names the answer depends on
both algorithms, step by step. Nothing else gives the same answer. Sources: the behaviour of
`torch._C.PyTorchFileReader` (2.13) and miniz 3.0.2, `mz_zip_reader_sort_central_dir_offsets_by
_filename` and `mz_zip_locate_file_binary_search`.
"""

from __future__ import annotations


def torch_order(keys: list[bytes]) -> list[int]:
    """Indexes of `keys` in the order in which an in-place max-heap sort leaves them."""
    order = list(range(len(keys)))
    count = len(order)
    for root in range((count - 2) // 2, -1, -1):
        _sink(order, keys, root, count)
    for end in range(count - 1, 0, -1):
        order[end], order[0] = order[0], order[end]
        _sink(order, keys, 0, end)
    return order


def _sink(order: list[int], keys: list[bytes], root: int, end: int) -> None:
    """Let `order[root]` sink below greater children; equal ones stay where they are."""
    while (child := 2 * root + 1) < end:
        if child + 1 < end and keys[order[child]] < keys[order[child + 1]]:
            child += 1
        if not keys[order[root]] < keys[order[child]]:
            return
        order[root], order[child] = order[child], order[root]
        root = child


def torch_find(order: list[int], keys: list[bytes], key: bytes) -> int | None:
    """The index that a search by halves meets first, or None."""
    low, high = 0, len(order) - 1
    while low <= high:
        middle = (low + high) // 2
        found = keys[order[middle]]
        if found == key:
            return order[middle]
        if found < key:
            low = middle + 1
        else:
            high = middle - 1
    return None
