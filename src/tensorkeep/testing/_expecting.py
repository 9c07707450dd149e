"""The little of pytest that the suites need, so that they import nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType


class raises:  # noqa: N801 - it reads as pytest's does
    """A `with` block that fails unless it raises an exception of this kind."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if kind is None:
            raise AssertionError(f"nothing was raised where {self._kind.__name__} was promised")
        return issubclass(kind, self._kind)


def at_once(work: Sequence[Callable[[], None]]) -> list[Exception]:
    """Run all of it in as many threads, started together; what they raised."""
    ready = threading.Barrier(len(work))
    raised: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        ready.wait()
        try:
            task()
        except Exception as error:  # a thread's own traceback would fail no test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised
