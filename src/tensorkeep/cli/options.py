"""Options that verbs share, and help in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_Command = Callable[..., Any]
_Decorator = Callable[[_Command], Any]

# Whether it can be read is seen when it is: by the store, in the store's words.
EXISTING = click.Path(readable=False, path_type=str)


class Grouped(click.Option):
    """An option that `--help` shows under the title `group`."""

    def __init__(self, *names: Any, group: str = "Options", **rest: Any) -> None:  # noqa: ANN401
        super().__init__(*names, **rest)
        self.group = group


class InGroups(click.Command):
    """A command whose help has a section for each group, in the order of the options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options of no group come last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        parameters = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        for parameter in sorted(parameters, key=lambda p: not isinstance(p, Grouped)):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(group: str, *names: str, **rest: Any) -> _Decorator:  # noqa: ANN401
    """`click.option` in a group."""
    return click.option(*names, cls=Grouped, group=group, **rest)


def together(*options: _Decorator) -> _Decorator:
    """Several options as one decorator, in the order in which they are given."""

    def decorate(command: _Command) -> Any:  # noqa: ANN401
        for one in reversed(options):
            command = one(command)
        return command

    return decorate


FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="How to write the result.",
)
# Of the verbs that make one file out of another.
SRC_AND_DST = together(
    click.argument("src", type=EXISTING), click.argument("dst", type=EXISTING), FORMAT
)
SECTION = option(
    "What is taken",
    "--section",
    metavar="NAME",
    help='A top-level part or "all"; the weights by default.',
)
REQUIRE = option(
    "What is taken",
    "--require",
    type=click.Choice(["safe"]),
    help="Refuse a source that is not safe.",
)
_WRITING = "How it is written"
WRITING = together(
    option(
        _WRITING, "--to", metavar="FORMAT", help="safetensors or torch; else DST's ending says."
    ),
    option(
        _WRITING,
        "--shard-size",
        metavar="SIZE",
        help="Largest part in a directory: 5GB, 500MiB.",
    ),
    option(_WRITING, "--drop-unsupported", is_flag=True, help="Leave out what DST cannot hold."),
    option(_WRITING, "--dry-run", is_flag=True, help="Say what would be written, write nothing."),
    option(_WRITING, "--verify", is_flag=True, help="Read it back and compare before it appears."),
    option(_WRITING, "--overwrite", is_flag=True, help="Replace DST if it exists."),
)
