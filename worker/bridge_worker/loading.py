"""Finds a handler by its name, and refuses one that could not be called or could not return a result."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge_worker.claim import CONTENT_TYPE
from bridge_worker.job import Result
from bridge_worker.text import one_line

Handler = Callable[..., Any]
#: Return annotations that are certainly wrong; any other value is checked when it is returned.
_NEVER = (str, bytes, dict, list, tuple, int, float, bool, type(None))


class BadHandler(Exception):
    """A handler that cannot be used; its text is one line for a person."""


def choose(specs: Sequence[str], content_types: Sequence[str]) -> dict[str, str]:
    """Map each content type (default: those that `specs` name) to `module:name`. Raises BadHandler."""
    by_type: dict[str, str] = {}
    for_all: str | None = None
    for spec in specs:
        content_type, _, name = spec.rpartition("=")
        if not all(name.partition(":")):
            raise BadHandler(f"--handler {spec!r}: expected package.module:function")
        if content_type:
            by_type[content_type] = name
        else:
            for_all = name
    types = list(content_types) or list(by_type)
    if not types:
        raise BadHandler("--content-types is missing")
    if len(types) > 32:
        raise BadHandler("--content-types: at most 32")
    for content_type in [*types, *by_type]:
        if not CONTENT_TYPE.fullmatch(content_type):
            raise BadHandler(f"content type {content_type!r}: 1–50 of a-z 0-9 . _ -")
    chosen = {}
    for content_type in types:
        name_of = by_type.get(content_type, for_all)
        if name_of is None:
            raise BadHandler(f"no --handler for content type {content_type}")
        chosen[content_type] = name_of
    return chosen


class Loaded:
    """One handler in its process: a function, or an object with `handle` and optionally `setup` and `close`."""

    def __init__(self, name: str) -> None:
        """Import it. Raises BadHandler with what is wrong in one line."""
        module_name, _, attribute = name.partition(":")
        try:
            found = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except BaseException as error:  # an import runs foreign code: it may even exit
            hint = ""
            if isinstance(error, ModuleNotFoundError) and module_name.startswith("bridge_worker."):
                hint = "; pip install 'bridge-worker[handlers]'"
            text = one_line(str(error), 500) or type(error).__name__
            kind = "" if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: "
            raise BadHandler(f"--handler {name}: {kind}{text}{hint}") from error
        self.name = name
        self._object: Any = None
        if inspect.isclass(found):
            try:
                found = found()
            except Exception as error:
                raise BadHandler(f"--handler {name}: {type(error).__name__}: {one_line(str(error), 500)}") from error
        if not inspect.isroutine(found) and hasattr(found, "handle"):
            self._object, found = found, found.handle
        if not callable(found):
            raise BadHandler(f"--handler {name}: neither a function nor a class with a method `handle`")
        self.function: Handler = found
        _check(name, found)

    def setup(self, options: Mapping[str, str]) -> Any:
        """Call the object's `setup(options)`, if it has one; what it returns may be awaitable."""
        return self._object.setup(dict(options)) if hasattr(self._object, "setup") else None

    def close(self) -> Any:
        """Call the object's `close()`, if it has one; what it returns may be awaitable."""
        return self._object.close() if hasattr(self._object, "close") else None


def _check(name: str, function: Handler) -> None:
    """Refuse a function that cannot be called with (job, path), or is annotated to return no Result."""
    try:
        inspect.signature(function).bind("job", "path")
    except TypeError as error:
        raise BadHandler(f"--handler {name}: cannot be called with (job, path): {error}") from error
    except ValueError:
        pass  # a C function without a signature
    try:
        returns = typing.get_type_hints(function).get("return", Result)
    except Exception:
        return  # unreadable annotations are ignored
    if returns in _NEVER:
        raise BadHandler(f"--handler {name}: is annotated to return {returns.__name__}, not bridge_worker.Result")
