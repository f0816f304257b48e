"""Calls that are made at the same moment, and one in the midst of another."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from bridge.errors import BridgeError


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run each call in its own thread, all released together; return their answers, a BridgeError as such."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return call()
        except BridgeError as refusal:
            return refusal

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


@contextmanager
def watching(engine: Engine, note: Callable[..., Any], moment: str = "before_cursor_execute") -> Iterator[None]:
    """Call `note` with (connection, cursor, statement, …) at this moment of each statement while the block runs."""
    event.listen(engine, moment, note)
    try:
        yield
    finally:
        event.remove(engine, moment, note)


@contextmanager
def meanwhile(engine: Engine, part: str, call: Callable[[], Any]) -> Iterator[None]:
    """Make this call just before the first statement that has this part is sent."""
    calls = [call]

    def meet(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if part in statement and calls:
            calls.pop()()

    with watching(engine, meet):
        yield
    assert not calls, f"no statement had {part!r}"
