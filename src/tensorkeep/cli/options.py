"""Options that verbs share."""

from __future__ import annotations

import click

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="How to write the result.",
)
EXISTING = click.Path(path_type=str)
