"""Names without what the known wrappers and layers do to them: equal where tensors are the same.

Skeletons only pair names up. What turns one into the other is found from the pair, and tried.
"""

from __future__ import annotations

from collections.abc import Collection

from tensorkeep.matching.catalogue import ADAPTER, ANYWHERE, LEAVES

_SPECTRAL = {"_orig": "", "_u": ".0._u", "_v": ".0._v"}
_WEIGHT_NORM = {"_g": ".original0", "_v": ".original1"}
_PARAMETRIZED = "parametrizations."


def skeletons(names: Collection[str]) -> dict[str, str]:
    """Each name's skeleton; where two have the same, both keep their own names."""
    known = names if isinstance(names, set | frozenset) else set(names)
    made = {name: _skeleton(name, known) for name in names}
    seen: dict[str, str] = {}
    twins = {one for name, one in made.items() if seen.setdefault(one, name) != name}
    return {name: name if one in twins else one for name, one in made.items()}


def _skeleton(name: str, known: Collection[str]) -> str:
    parts = name.split(".")
    kept = [
        part
        for at, part in enumerate(parts)
        if part not in ANYWHERE and not (part == ADAPTER and at)
    ] or parts
    head, leaf = ".".join(kept[:-1]), kept[-1]
    leaf = LEAVES.get(leaf) or _computed(name, leaf, known)
    head, leaf = _plain(head, leaf)
    return f"{head}.{leaf}" if head else leaf


def _computed(name: str, leaf: str, known: Collection[str]) -> str:
    """Weight norm and spectral norm, each told by the tensors that stand beside this one."""
    for tail in ("_g", "_v", "_u"):
        if leaf.endswith(tail):
            stem, whole = leaf.removesuffix(tail), name.removesuffix(tail)
            if f"{whole}_orig" in known and tail in _SPECTRAL:
                return f"{_PARAMETRIZED}{stem}{_SPECTRAL[tail]}"
            if f"{whole}_g" in known and f"{whole}_v" in known and tail in _WEIGHT_NORM:
                return f"{_PARAMETRIZED}{stem}{_WEIGHT_NORM[tail]}"
    return leaf


def _plain(head: str, leaf: str) -> tuple[str, str]:
    """`parametrizations.weight.original` is the weight that a module would have without it."""
    front, dot, stem = head.rpartition(_PARAMETRIZED)
    if dot and leaf == "original" and "." not in stem:
        return front.rstrip("."), stem
    return head, leaf
