"""Whole models of `torch.nn`, saved as objects."""

from __future__ import annotations

from writing import Case

CASES: dict[str, Case] = {}
