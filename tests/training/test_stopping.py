"""SIGTERM ends a run at a step that it knows, and what it knows is on disk then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tensorkeep.errors import BadArgument, Interrupted, TensorkeepWarning
from tensorkeep.training.run import Run


@pytest.fixture(autouse=True)
def a_handler_of_the_users():
    """Signals that tensorkeep did not take."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def steps_of(path: Path) -> list[int]:
    return [int(each.name[5:]) for each in sorted(path.glob("step-*"))]


def test_every_saves_at_its_steps_and_says_so(tmp_path) -> None:
    with Run(tmp_path) as run:
        run.track(facts={})
        assert [run.save(step, every=3) for step in range(1, 8)] == [False, False, True] * 2 + [
            False
        ]
        assert run.step == 7
        for wrong in (0, True, 1.5):
            with pytest.raises(BadArgument, match="every"):
                run.save(8, every=wrong)
    assert steps_of(tmp_path) == [3, 6]


def test_the_next_save_is_made_and_ends_the_run(tmp_path, a_handler_of_the_users) -> None:
    with pytest.raises(Interrupted, match="step 4 is saved"), Run(tmp_path, on_sigterm="save") as r:
        r.track(facts={})
        for step in range(1, 9):
            if step == 4:
                terminate()
                assert r.stopping
            r.save(step, every=100)
    assert steps_of(tmp_path) == [4]
    assert a_handler_of_the_users == []
    terminate()
    assert a_handler_of_the_users == [signal.SIGTERM]


def test_the_second_signal_is_as_it_was(tmp_path, a_handler_of_the_users) -> None:
    with pytest.raises(Interrupted), Run(tmp_path, on_sigterm="save") as run:
        terminate()
        terminate()
        assert a_handler_of_the_users == [signal.SIGTERM]
        run.track(facts={})
        run.save(1)
    assert steps_of(tmp_path) == [1]


def test_unasked_the_signal_is_not_taken(tmp_path, a_handler_of_the_users) -> None:
    with Run(tmp_path) as run:
        terminate()
        assert not run.stopping
    assert a_handler_of_the_users == [signal.SIGTERM]


def loader() -> DataLoader:
    return DataLoader([float(n) for n in range(8)], batch_size=2)


def interrupted_between(path: Path, *, known: bool) -> list[float]:
    """The signal comes after the body of the second batch; `known`: and after its `save`."""
    seen = []
    with pytest.raises(Interrupted), Run(path, on_sigterm="save") as run:
        run.track(facts={})
        for step, batch in enumerate(run.batches(loader()), 1):
            seen.append(batch[0].item())
            if step == 2 and not known:
                terminate()
            if known or step == 3:
                run.save(step, every=100)
            if step == 2 and known:
                terminate()
    return seen


def test_the_next_batch_ends_the_run_where_the_step_is_known(tmp_path) -> None:
    assert interrupted_between(tmp_path, known=True) == [0.0, 2.0]
    assert steps_of(tmp_path) == [2]
    with Run(tmp_path) as run:
        run.track(facts={})
        assert run.resume() == 2
        assert [batch[0].item() for batch in run.batches(loader())] == [4.0, 6.0]


def test_and_else_the_next_save(tmp_path) -> None:
    assert interrupted_between(tmp_path, known=False) == [0.0, 2.0, 4.0]
    assert steps_of(tmp_path) == [3]


def test_between_epochs_it_ends_too(tmp_path) -> None:
    with pytest.raises(Interrupted), Run(tmp_path, on_sigterm="save") as run:
        run.track(facts={})
        for step, _ in enumerate(run.batches(loader()), 1):
            run.save(step, every=100)
        terminate()
        next(iter(run.batches(loader())))
    assert steps_of(tmp_path) == [4]
    with Run(tmp_path) as run:
        run.track(facts={})
        run.resume()
        assert run.epoch == 1


def test_a_signal_that_nobody_asked_after_is_not_lost(tmp_path) -> None:
    with (
        pytest.raises(Interrupted, match="step 1 is saved"),
        Run(tmp_path, on_sigterm="save") as run,
    ):
        run.track(facts={})
        run.save(1, every=5)
        terminate()
    assert steps_of(tmp_path) == [1]
    with Run(tmp_path, on_sigterm="save") as run:
        terminate()
        with pytest.raises(Interrupted, match="nothing was saved yet"):
            next(iter(run.batches(loader())))


def test_leaving_the_block_saves_what_is_newer(tmp_path) -> None:
    with Run(tmp_path, on_exit="save") as run:
        run.track(facts={})
        for step, _ in enumerate(run.batches(loader()), 1):
            run.save(step, every=2)
            if step == 3:
                break
    assert steps_of(tmp_path) == [2, 3]
    with Run(tmp_path, on_exit="save") as run:
        run.track(facts={})
        assert run.resume() == 3
        assert [batch[0].item() for batch in run.batches(loader())] == [6.0]
    assert steps_of(tmp_path) == [2, 3]
    with pytest.raises(KeyError), Run(tmp_path, on_exit="save") as run:
        run.track(facts={})
        run.resume()
        run.save(5, every=2)
        raise KeyError
    assert steps_of(tmp_path) == [2, 3]


def test_outside_the_main_thread_it_says_that_no_signal_comes(tmp_path) -> None:
    def work() -> None:
        with pytest.warns(TensorkeepWarning, match="main thread"), Run(tmp_path, on_sigterm="save"):
            done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_what_means_nothing_is_refused(tmp_path) -> None:
    for options in ({"on_sigterm": "stop"}, {"on_exit": True}):
        with pytest.raises(BadArgument, match='"save" or None'):
            Run(tmp_path, **options)
    Run(tmp_path).close()


CHILD = textwrap.dedent("""
    import os, sys, time
    import torch
    import tensorkeep as tk

    model = torch.nn.Linear(2, 2)
    with tk.Run(sys.argv[1], on_sigterm="save") as run:
        run.track(model=model)
        if os.fork() == 0:
            os.write(1, b"running\\n")
            time.sleep(60)  # a child that was forked dies of its own signal
            os._exit(3)
        for step in range(1, 10**6):
            with torch.no_grad():
                model.weight.fill_(step)
            run.save(step, every=10**9)
            if step == 1:
                os.write(1, b"running\\n")
            time.sleep(0.001)
""")


def test_a_process_that_is_terminated_goes_on_where_it_was(tmp_path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "run")]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    # Of both processes: Python forgets signals that come while it forks.
    try:
        assert [child.stdout.readline() for _ in range(2)] == [b"running\n"] * 2
        os.killpg(child.pid, signal.SIGTERM)  # as a terminal or a scheduler does: to all of them
        _, err = child.communicate(timeout=50)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    assert child.returncode == 1
    assert b"Interrupted" in err
    (step,) = steps_of(tmp_path / "run")
    model = torch.nn.Linear(2, 2)
    with Run(tmp_path / "run") as run:
        run.track(model=model)
        assert run.resume() == step
    assert model.weight.unique().tolist() == [step]
