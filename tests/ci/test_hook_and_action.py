"""The pre-commit hook and the GitHub Action, run as far as that goes without their services."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tensorkeep.scanning.walking import _MODEL_SUFFIXES


@pytest.fixture(scope="module")
def hook(root):
    (found,) = yaml.safe_load((root / ".pre-commit-hooks.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def action(root):
    return yaml.safe_load((root / "action.yml").read_text())


def environment(**more):
    tools = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **more}


def run(*command, cwd, **more):
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def git(*arguments, cwd):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = run("git", *who, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_hook_is_asked_about_every_model_file(hook):
    pattern = re.compile(hook["files"])
    assert [end for end in _MODEL_SUFFIXES if not pattern.search(f"a/b{end}")] == []
    assert pattern.search("MODEL.PTH")
    for name in ("setup.py", "pth", "a.pth.txt", "config.json", "README.md"):
        assert not pattern.search(name)


def test_the_entry_takes_many_files_at_once(hook, tmp_path, digits, hostile_digits):
    names = [f"sub dir/{at} model.pth" for at in range(200)]
    (tmp_path / "sub dir").mkdir()
    for name in names:
        shutil.copy(digits, tmp_path / name)
    done = run(*hook["entry"].split(), *names, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1][:19]) == (0, "200 files: 200 safe")
    shutil.copy(hostile_digits, tmp_path / names[150])
    done = run(*hook["entry"].split(), *names, cwd=tmp_path)
    assert done.returncode == 1
    assert "os.system" in done.stdout


def test_pre_commit_runs_the_hook(root, hook, tmp_path, digits, hostile_digits):
    """Through pre-commit itself, from a repository that holds the hook's definition.

    Its language is `system` here: what is installed is tested, and nothing is fetched.
    """
    source = tmp_path / "source"
    source.mkdir()
    definition = {**hook, "language": "system"}
    (source / ".pre-commit-hooks.yaml").write_text(yaml.safe_dump([definition]))
    git("init", "-q", cwd=source)
    git("add", ".", cwd=source)
    git("commit", "-qm", "hooks", cwd=source)
    place = tmp_path / "place"
    place.mkdir()
    git("init", "-q", cwd=place)
    shutil.copy(digits, place / "good model.pth")
    (place / "notes.md").write_text("words")
    revision = git("rev-parse", "HEAD", cwd=source)
    repos = [{"repo": str(source), "rev": revision, "hooks": [{"id": hook["id"]}]}]
    (place / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": repos}))
    git("add", ".", cwd=place)
    command = (sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose")
    home = {"PRE_COMMIT_HOME": str(tmp_path / "home")}
    done = run(*command, cwd=place, **home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good model.pth" in done.stdout
    assert "notes.md" not in done.stdout
    shutil.copy(hostile_digits, place / "bad.pth")
    git("add", ".", cwd=place)
    done = run(*command, cwd=place, **home)
    assert done.returncode == 1
    assert "would call os.system" in done.stdout


def test_pre_commit_accepts_the_definition(root):
    path = root / ".pre-commit-hooks.yaml"
    done = run(sys.executable, "-m", "pre_commit", "validate-manifest", path, cwd=root)
    assert done.returncode == 0, done.stdout


def test_the_action_is_composed_of_steps_with_a_shell(action):
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        # What a user gives reaches the shell as a variable, never as part of the script.
        assert "${{" not in step["run"]
    used = set(re.findall(r"inputs\.([a-z-]+)", json.dumps(action["runs"])))
    assert used == set(action["inputs"])
    assert all(given["description"] for given in action["inputs"].values())


@pytest.fixture
def job(tmp_path, action):
    """Runs the action's scanning step in a folder, with tensorkeep where its first step puts it."""
    tools = tmp_path / "runner" / "tensorkeep" / "bin"
    tools.mkdir(parents=True)
    (tools / "tensorkeep").symlink_to(Path(sys.executable).parent / "tensorkeep")
    folder = tmp_path / "checkout"
    folder.mkdir()

    def step(**inputs):
        defaults = {name: given["default"] for name, given in action["inputs"].items()}
        (scan,) = [step for step in action["runs"]["steps"] if step.get("id") == "scan"]
        variables = {
            name: {**defaults, **inputs}[value[len("${{ inputs.") : -len(" }}")]]
            for name, value in scan["env"].items()
        }
        output = tmp_path / "output"
        output.write_text("")
        variables |= {"RUNNER_TEMP": str(tmp_path / "runner"), "GITHUB_OUTPUT": str(output)}
        done = run("bash", "-e", "-c", scan["run"], cwd=folder, **variables)
        return done, output.read_text()

    return folder, step


def test_the_action_scans_and_writes_sarif(job, digits, hostile_digits):
    folder, step = job
    shutil.copy(digits, folder / "good.pth")
    done, output = step()
    assert (done.returncode, output) == (0, "exit-code=0\n"), done.stderr
    shutil.copy(hostile_digits, folder / "bad one.pth")
    done, output = step(**{"sarif-file": "out file.sarif", "paths": "good.pth\nbad one.pth\n"})
    assert (done.returncode, output) == (1, "exit-code=1\n")
    assert "would call os.system" in done.stdout
    (result,) = json.loads((folder / "out file.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "pickle/dangerous-call"


def test_the_action_takes_settings_and_a_threshold(job, hostile_digits):
    folder, step = job
    shutil.copy(hostile_digits, folder / "bad.pth")
    known = run("tensorkeep", "scan", "--write-baseline", "known.json", "bad.pth", cwd=folder)
    assert known.returncode == 0
    assert step(baseline="known.json")[0].returncode == 0
    (folder / "ci.toml").write_text('[scan]\nbaseline = "known.json"\n')
    assert step(config="ci.toml")[0].returncode == 0
    assert step(**{"fail-on": "dangerous"})[0].returncode == 1
    assert step(**{"fail-on": "never"})[1] == "exit-code=2\n"


@pytest.mark.parametrize("path", ["$(touch owned)", "; touch owned", "`touch owned`", "--help"])
def test_a_path_is_never_a_command(job, path):
    folder, step = job
    done, output = step(paths=path)
    assert (done.returncode, output) == (2, "exit-code=2\n")
    assert not (folder / "owned").exists()


def test_the_installing_step_names_what_to_install(action):
    (install, _) = action["runs"]["steps"]
    line = install["run"].replace('python3 -m venv "$RUNNER_TEMP/tensorkeep"', ":")
    line = line.replace('"$RUNNER_TEMP/tensorkeep/bin/python" -m pip', "echo")
    for version, wanted in (("", "/the/action"), ("1.2", "tensorkeep==1.2")):
        done = run("bash", "-e", "-c", line, cwd="/", VERSION=version, ACTION_PATH="/the/action")
        assert done.stdout.split()[-1] == wanted
