"""Every block of code in the documentation runs, and every command and option is documented.

`console` blocks: lines that begin with `$ ` are run by bash, the lines below one are what it
prints (stdout and stderr together), where `...` stands for anything. A command must end with
exit code 0 unless the next command is `echo $?` with the code below it. `python` blocks of a page
share one namespace; a `pytb` block below one is how it ends: with that exception. `json` and `toml`
blocks parse; a `toml` block that begins with its name in a comment and a schema is a recipe, and is
written under that name. `sh` blocks set up a machine and are not run: what they name must exist.
The blocks of a page run in order, in a folder of their own that holds a copy of `examples/`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import click
import pytest
import yaml

from tensorkeep.cli.main import cli
from tensorkeep.edits import recipe
from tensorkeep.edits.registry import OPS, kind
from tensorkeep.scanning.settings import parse
from tensorkeep.scanning.words import RULES
from tensorkeep.scanning.words import page as page_of_rule

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP_LEVEL = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
RUN = {"console", "python", "pytb", "json", "toml", "yaml"}
SHOWN = {"sh", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines joined, and the line it begins on."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    language, start, lines = None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if language is None and line.startswith("```"):
            language, start, lines = line[3:].strip(), number + 1, []
        elif language is not None and line == "```":
            yield Block(language, "\n".join(lines), start)
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{page.name}: the block at line {start} is not closed"


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it.

    A line that begins with "> " goes on with the command above it, as a shell shows it.
    """
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        first, *rest = part.split("\n")
        while rest and rest[0].startswith("> "):
            first += "\n" + rest.pop(0)[2:]
        yield first, "\n".join(rest).rstrip("\n")


def matches(shown: str, printed: str) -> bool:
    """Whether `printed` is what the page shows; `...` is any text, trailing blanks apart."""
    clean = "\n".join(line.rstrip() for line in printed.splitlines())
    pattern = ".*".join(re.escape(piece) for piece in shown.split("..."))
    return re.fullmatch(pattern, clean, flags=re.S) is not None


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a  \nb\n", True),
        ("a...c", "a\nb\nc", True),
        ("...b...", "abc", True),
        ("a", "ab", False),
        ("a...c", "ab", False),
        ("a.c", "abc", False),
        ("", "a", False),
    ],
)
def test_matching_of_output(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with examples/ in it, as in a fresh clone; it is the current one."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bash(command: str) -> subprocess.CompletedProcess[str]:
    """Run as a reader would who pipes the output: no terminal, no colour."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        ["bash", "-c", command],
        env=environment,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )


def run_console(block: Block, place: str) -> None:
    """Run the commands of a block and compare what they print with what is shown."""
    todo = list(steps(block.text))
    assert todo, f"{place}: a console block without a command"
    for (command, shown), following in zip(todo, [*todo[1:], ("", "")], strict=True):
        if command == "echo $?":
            continue
        result = bash(command)
        expected = int(following[1]) if following[0] == "echo $?" else 0
        told = f"{place}: $ {command}\n{result.stdout}"
        assert result.returncode == expected, f"{told}\nexit code {result.returncode}"
        if shown:
            assert matches(shown, result.stdout), f"{told}\ndoes not look like\n{shown}"


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> None:
    """Execute a block so that a traceback names the page and its line."""
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    exec(code, namespace)


def run_failing(block: Block, ends: Block, page: Path, namespace: dict[str, object]) -> None:
    """Execute a block that must end with the exception that `ends` shows."""
    place = f"{page.name}:{ends.line}"
    try:
        run_python(block, page, namespace)
    except Exception as error:  # noqa: BLE001  # what it is, is compared
        printed = "".join(traceback.format_exception_only(error))
        assert matches(ends.text, printed), f"{place}: {printed}\ndoes not look like\n{ends.text}"
    else:
        pytest.fail(f"{place}: nothing was raised")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_the_page_run(page: Path, workplace: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    todo = list(blocks(page))
    for block, following in zip(todo, [*todo[1:], Block("", "", 0)][: len(todo)], strict=True):
        place = f"{page.name}:{block.line}"
        assert block.language in RUN | SHOWN, f"{place}: nobody checks ```{block.language}"
        if block.language == "console":
            run_console(block, place)
        elif following.language == "pytb":
            assert block.language == "python", f"{place}: nothing ends with the exception below it"
            run_failing(block, following, page, namespace)
        elif block.language == "python":
            run_python(block, page, namespace)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            if named := re.match(r"# (\S+\.toml)\nschema", block.text):
                recipe.parse(block.text, place)
                Path(named[1]).write_text(block.text + "\n", encoding="utf-8")
            else:
                parse(block.text, place)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text), place


def set_up_lines() -> list[tuple[str, str]]:
    """Every line of an `sh` block, with its place."""
    return [
        (f"{page.name}:{block.line}", line)
        for page in TOP_LEVEL
        for block in blocks(page)
        if block.language == "sh"
        for line in block.text.splitlines()
        if line.strip()
    ]


def test_set_up_lines_name_what_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    for place, line in set_up_lines():
        made = re.fullmatch(r"make ([a-z-]+)( [A-Z]+=\S+)*", line)
        installed = re.fullmatch(r"pip install '?(?:tensorkeep|\.)(?:\[([a-z,]+)\])?'?", line)
        assert made or installed, f"{place}: {line!r} is neither `make` nor `pip install`"
        if made:
            assert made[1] in targets, f"{place}: the Makefile has no {made[1]}"
        if installed and installed[1]:
            assert set(installed[1].split(",")) <= extras, f"{place}: no such extra"


@pytest.mark.parametrize("page", TOP_LEVEL, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> list[tuple[str, click.Command]]:
    """Every command of the CLI, the group itself too, under the words that call it."""
    found: list[tuple[str, click.Command]] = []
    todo: list[tuple[str, click.Command]] = [("", cli)]
    while todo:
        words, command = todo.pop()
        found.append((words, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                sub = command.get_command(context, name)
                assert sub is not None, f"{words} {name} is listed and is not there"
                todo.append((f"{words} {name}".strip(), sub))
    return sorted(found, key=lambda pair: pair[0])


COMMANDS = pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*pair, id=pair[0] or "tensorkeep") for pair in commands()]
)


def page_of(words: str) -> str:
    """The name of a command's page, without its ending; a group's page has all its commands."""
    return words.partition(" ")[0] or "index"


def options(command: click.Command) -> set[str]:
    """The long names of a command's options, `--help` apart; a group's commands have theirs."""
    if isinstance(command, click.Group) and command is not cli:
        return set().union(*(options(sub) for sub in command.commands.values()))
    names = {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return {name for name in names if name.startswith("--")} - {"--help"}


def documented_options(page: Path) -> set[str]:
    """The options that have a row in the page's table."""
    return set(re.findall(r"(--[a-z][a-z-]*)", "\n".join(
        line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith("| `--")
    )))  # fmt: skip


@COMMANDS
def test_every_command_and_option_is_documented(words: str, command: click.Command) -> None:
    page = ROOT / "docs" / "commands" / f"{page_of(words)}.md"
    assert page.exists(), f"`tensorkeep {words}` has no page"
    if " " not in words:
        assert documented_options(page) == options(command)


def test_every_page_of_a_command_has_its_command() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "commands").glob("*.md")}
    assert pages == {page_of(words) for words, _ in commands()}


@COMMANDS
def test_help_shows_two_examples(words: str, command: click.Command) -> None:
    result = bash(f"tensorkeep {words} --help")
    assert result.returncode == 0
    _, examples = result.stdout.split("Examples:")
    assert examples.count(f"tensorkeep {words}".strip() + " ") >= 2, result.stdout


def rows(page: Path, heading: str = "") -> list[list[str]]:
    """The cells of the tables below a heading, their first rows and rules left out."""
    text = page.read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else text
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0].startswith(("`", "[`"))]


@pytest.mark.parametrize(
    "command", ["scan", "inspect", "diff", "convert", "quantize", "match", "verify"]
)
def test_the_json_page_has_the_keys(command: str, workplace: Path) -> None:
    second = dict.fromkeys(("diff", "match"), " examples/digits.pth")
    written = dict.fromkeys(("convert", "quantize"), " out.safetensors")
    target = {**written, **second}.get(command, "")
    result = bash(f"tensorkeep {command} --format json examples/digits.pth{target} 2>/dev/null")
    keys = set(json.loads(result.stdout))
    first = [row[0] for row in rows(ROOT / "docs" / "json.md", command)]
    assert keys == {key for cell in first for key in re.findall(r"`(\w+)`", cell)}


def test_every_edit_and_field_is_documented() -> None:
    found = {}
    for op, _, shown in rows(ROOT / "docs" / "edits.md", "A recipe"):
        known = {field.name for field in fields(kind(op.strip("`"))) if field.init}
        found[op.strip("`")] = known
        assert {text for text in re.findall(r"`([a-z_]+)`", shown) if text in known} == known, op
    assert list(found) == list(OPS)


def test_a_heading_of_the_troubleshooting_page_is_a_message_shown_below_it() -> None:
    page = ROOT / "docs" / "troubleshooting.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    headings = [number for number, line in enumerate(lines, 1) if line.startswith("## ")]
    assert headings
    for number, end in zip(headings, [*headings[1:], len(lines)], strict=True):
        message = re.fullmatch("## (`+)(.*)\\1", lines[number - 1])
        assert message, lines[number - 1]
        # What tensorkeep says, or torch. What a block of torch's shows is compared when it runs.
        shown = [b.text for b in blocks(page) if number < b.line <= end and b.language != "python"]
        said = re.sub(r"^[$>] .*$", "", "\n".join(shown), flags=re.M)
        assert message[2].strip() in said, lines[number - 1]


def test_a_question_is_titled_as_it_is_typed() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    (questions,) = [entry["Questions"] for entry in nav if "Questions" in entry]
    assert len(questions) >= 13
    for entry in questions:
        ((title, name),) = entry.items()
        page = ROOT / "docs" / name
        assert page.read_text(encoding="utf-8").startswith(f"# {title}\n"), name
        assert {"console", "python"} & {block.language for block in blocks(page)}, name
        assert f"]({name})" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), name


def rule_page(rule: str) -> Path:
    """Where the page of a rule lies."""
    return ROOT / "docs" / page_of_rule(rule).replace(".html", ".md")


def test_the_rules_page_is_the_table_of_rules() -> None:
    table = rows(ROOT / "docs" / "rules.md")
    docs = ROOT / "docs"
    assert table == [
        [f"[`{r.rule}`]({rule_page(r.rule).relative_to(docs)})", r.severity, r.title, r.why]
        for r in RULES.values()
    ]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_page_with_its_facts_and_an_example(rule: str) -> None:
    text, known = rule_page(rule).read_text(encoding="utf-8"), RULES[rule]
    facts = f"# {known.title}\n\n`{rule}`, {known.severity}.\n\n> {known.why}.\n\n{known.remedy}\n"
    assert text.startswith(facts)
    assert re.findall(r"^## (.*)$", text, flags=re.M) == [
        "What it means",
        "An example",
        "Why it matters",
        "What to do",
        "When it is harmless",
    ]
    (shown,) = [block.text for block in blocks(rule_page(rule)) if block.language == "console"]
    assert f"    rule    {rule}\n" in shown
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"- {rule}: {rule_page(rule).relative_to(ROOT / 'docs')}\n" in nav


def test_every_page_of_a_rule_has_its_rule() -> None:
    assert set((ROOT / "docs" / "rules").iterdir()) == {rule_page(rule) for rule in RULES}
