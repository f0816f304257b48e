"""One call of a handler, whatever its kind, and the outcome.

The kinds of outcome, and whose fault each is (worker/README.md has the rule):
`result`; `cancelled`; `file` (PermanentError and what will be the same next time); `limit` (this process ran out of
memory or descriptors); `unclear` (any other exception); `worker` (the handler itself is wrong).
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

from bridge_worker import result_files
from bridge_worker.job import Job, JobCancelled, PermanentError, Result
from bridge_worker.text import one_line, storable

ERROR_LIMIT = 1000  # characters of an exception's text that are reported
RESULT_FILE = "result.json"
_NO_RESULT = object()
_loop: asyncio.AbstractEventLoop | None = None
log = logging.getLogger("bridge_worker.handler")


def convert(handler: Callable[..., Any], job: Job, directory: Path) -> tuple[str, str]:
    """Call the handler and write its result to `directory`; return the kind of outcome and a text about it."""
    path = next(directory.glob("source*"))
    try:
        result = finish(handler(job, path), job)
        if not isinstance(result, Result) or not isinstance(result.content, str):
            what = "a Result whose content is not text" if isinstance(result, Result) else type(result).__name__
            return "worker", f"the handler returned {what}, not a bridge_worker.Result with text"
        return _write(result, directory)
    except (JobCancelled, asyncio.CancelledError, GeneratorExit) as error:
        return ("cancelled", "") if job.is_cancelled else ("unclear", error_text(error))
    except PermanentError as error:
        return "file", error_text(error)
    except MemoryError as error:
        return "limit", f"out of memory: {error_text(error)}"
    except RecursionError as error:
        return "file", f"nested too deeply: {error_text(error)}"
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # foreign code: what it raises fails this job only
        log.debug("job=%s traceback", job.id, exc_info=True)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return "limit", f"too many open descriptors: {error_text(error)}"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "machine", f"no room on the disk: {error_text(error)}"
        return "unclear", error_text(error)


def finish(returned: Any, job: Job | None = None) -> Any:
    """Return the value of a handler's call: its own, an awaitable's, or that of a generator that yields progress."""
    if inspect.isgenerator(returned):
        return _run_generator(returned, job)
    if inspect.isasyncgen(returned):
        return _await(_run_async_generator(returned, job), job)
    if inspect.isawaitable(returned):
        return _await(returned, job)
    return returned


def _run_generator(steps: Generator[Any, Any, Any], job: Job | None) -> Any:
    """Take progress until the generator returns; a cancel is raised at its `yield`, so that it may clean up."""
    last = _NO_RESULT
    try:
        step = next(steps)
        while True:
            last = _step(step, job)
            step = steps.throw(JobCancelled(job.cancel_reason)) if job is not None and job.is_cancelled else next(steps)
    except StopIteration as stop:
        return last if stop.value is None and last is not _NO_RESULT else stop.value


async def _run_async_generator(steps: AsyncGenerator[Any, Any], job: Job | None) -> Any:
    """Take progress until the generator ends; return the Result that it yields last."""
    last: Any = None
    async for step in steps:
        last = _step(step, job)
    return None if last is _NO_RESULT else last


def _step(step: Any, job: Job | None) -> Any:
    """Report yielded progress, a number or (number, message); return a yielded Result."""
    if isinstance(step, Result):
        return step
    if job is not None:
        job.progress(*step) if isinstance(step, tuple) else job.progress(step)
    return _NO_RESULT


def _await(awaitable: Any, job: Job | None) -> Any:
    """Run it to the end in this process's one loop, where what `setup` created can be used; a cancel cancels it."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    loop = _loop

    async def supervised() -> Any:
        task = asyncio.ensure_future(awaitable)
        if job is not None:
            job.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
        return await task

    return loop.run_until_complete(supervised())


def _write(result: Result, directory: Path) -> tuple[str, str]:
    try:
        fields = {"metadata": storable(result.metadata), **result_files.leave(result, directory)}
        text = json.dumps(fields, allow_nan=False)
    except result_files.BadFiles as error:
        return "worker", str(error)
    except (TypeError, ValueError, RecursionError) as error:
        return "file", f"the handler's result is not JSON: {error_text(error)}"
    # Atomically: if the handler forked, its copy writes too, while the worker reads.
    new = directory / f"{RESULT_FILE}.{os.getpid()}"
    new.write_text(text, encoding="utf-8")
    new.replace(directory / RESULT_FILE)
    return "result", ""


def error_text(error: BaseException) -> str:
    """Return an exception as one line: its type, and its text if it has one."""
    text = one_line(str(error), ERROR_LIMIT)
    name = type(error).__name__
    return text if text and isinstance(error, PermanentError) else f"{name}: {text}" if text else name
