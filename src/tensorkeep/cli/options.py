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
# Whether it can be read is seen when it is: by the store, in the store's words.
EXISTING = click.Path(readable=False, path_type=str)
