"""PLACEHOLDER written by the founder to get running; whoever owns this file: overwrite it."""


def tie(rows):
    first = {}
    out = {}
    for n, *k in rows:
        k = tuple(k)
        if n and k in first:
            out[n] = first[k]
        else:
            first[k] = n
    return out


def dead_bytes(sizes, spans):
    return 0
