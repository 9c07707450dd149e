"""`tensorkeep prove-resume` where it cannot finish. What it proves: tests/training, and docs."""

from __future__ import annotations


def test_what_cannot_be_imported_is_one_sentence(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def train(run, steps): ...\n")
    done = cli("prove-resume", "mine:tain", "--steps", "3")
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("tensorkeep: mine:tain: expected a module that can be imported")
    assert "has no attribute 'tain'" in last


def test_what_means_nothing_is_refused(cli) -> None:
    done = cli("prove-resume", "mine.py", "--steps", "3")
    assert (done.code, done.out) == (2, "")
    assert "expected package.module:function" in done.err
