"""Run self-committing statements on the driver's cursor; SQLAlchemy compiles their text and its pool lends connections.

SQLAlchemy's own execution costs 0.1 to 0.25 ms more. This is for the few statements that every job passes through; all
others are run by SQLAlchemy. Each is prepared once in the life of a connection: to parse and plan it is half of what
PostgreSQL does for one of them. A plan that is kept may be from a moment when the table was empty and to read all of it
was the cheapest way, so that way is ruled out. Behind a pooler that shares connections they are sent as text.
"""

import hashlib
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import structlog
from sqlalchemy import Engine, Executable
from sqlalchemy.exc import DBAPIError

from bridge.db import without_rows

log = structlog.get_logger("bridge.driver_statements")

# The statements name their rows, and a plan by their number (an estimate) is the same for one and for a hundred.
_ONE_PLAN = "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan"
_PREPARED_HERE = "prepared"  # in a connection's `info`: the statements that it knows
# What PostgreSQL says, before it runs anything, where a prepared statement is not there, is there already, or returns
# other types than when it was prepared.
_NOT_AS_PREPARED = {"26000", "42P05", "0A000"}
_PARAMETER = re.compile(r"%\((\w+)\)s")
_CAST = re.compile(r"CAST\(%\((\w+)\)s AS ([\w ]+(?:\[\])?)\)")


class _Written(NamedTuple):
    """A statement as the driver takes it."""

    text: str
    defaults: Mapping[str, Any]  # of its parameters
    prepare: str
    execute: str


class DriverStatements:
    """Runs the statements of one engine; its errors, and what happens to a connection then, are as with SQLAlchemy.

    A statement's execution option `prepared_as` is its name in pg_stat_activity, before a hash.

    So are the events `before_cursor_execute` and `after_cursor_execute`, with the engine in the connection's place.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._error: Any = engine.dialect.loaded_dbapi.Error
        self._written: dict[Executable, _Written] = {}  # statements of ours, of which there are few
        self._rows: dict[Executable, Callable[[Iterable[Any]], Any]] = {}
        self._prepares = True

    def execute(self, statement: Executable, values: Mapping[str, Any]) -> list[Any]:
        """Run and commit a statement; return its rows as named tuples of the driver's values.

        Raises sqlalchemy.exc.SQLAlchemyError; ValueError for a value that the driver cannot write down.
        """
        written = self._written.get(statement) or self._write(statement)
        try:
            connection = self._engine.raw_connection()
        except self._error as error:
            raise self._wrapped(error, lost=False) from error
        driver: Any = connection.dbapi_connection
        try:
            driver.autocommit = True
            with driver.cursor() as cursor:
                given = {**written.defaults, **values}
                for note in self._engine.dispatch.before_cursor_execute:
                    note(self._engine, cursor, written.text, given, None, False)
                self._send(cursor, written, given, connection.info)
                for note in self._engine.dispatch.after_cursor_execute:
                    note(self._engine, cursor, written.text, given, None, False)
                found = cursor.fetchall()
                row = self._rows.get(statement) or self._name(statement, cursor.description)
        except BaseException as error:
            self._failed(connection, driver, error)
        self._give_back(connection, driver)
        return [row(one) for one in found]

    def _send(self, cursor: Any, written: _Written, given: Mapping[str, Any], info: dict[Any, Any]) -> None:
        known: set[str] = info.setdefault(_PREPARED_HERE, set())
        try:
            if self._prepares:
                if written.prepare not in known:
                    cursor.execute(written.prepare)
                    known.add(written.prepare)
                cursor.execute(written.execute, given)
                return
        except self._error as error:
            if error.pgcode not in _NOT_AS_PREPARED:
                raise
            self._prepares = False
            log.warning("statements_not_prepared", sqlstate=error.pgcode)
        cursor.execute(written.text, given)

    def _write(self, statement: Executable) -> _Written:
        compiled: Any = statement.compile(dialect=self._engine.dialect)  # type: ignore[attr-defined]
        defaults = {name: compiled.params[name] for name, bind in compiled.binds.items() if not bind.required}
        name = statement.get_execution_options().get("prepared_as", "unnamed")
        prepare, execute = zip(*(_prepared(name, part) for part in str(compiled).split(";\n")), strict=True)
        executed = "; ".join([_ONE_PLAN, *execute])
        self._written[statement] = written = _Written(str(compiled), defaults, "; ".join(prepare), executed)
        return written

    def _name(self, statement: Executable, columns: Iterable[Any]) -> Callable[[Iterable[Any]], Any]:
        names = [column.name for column in columns]
        named: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]
        self._rows[statement] = named._make
        return self._rows[statement]

    def _failed(self, connection: Any, driver: Any, error: BaseException) -> NoReturn:
        """Return or drop the connection, depending on what failed, and raise the error."""
        if not isinstance(error, Exception):  # its greenlet was ended while it waited for the answer
            connection.invalidate(error)
            raise error
        lost = isinstance(error, self._error) and self._engine.dialect.is_disconnect(error, driver, None)
        if lost:  # with all that are as old, which would be found dead one after the other
            self._engine.pool._invalidate(connection, error)  # noqa: SLF001
        else:
            self._give_back(connection, driver)
        if isinstance(error, self._error):
            raise self._wrapped(error, lost=lost) from error
        raise error

    def _give_back(self, connection: Any, driver: Any) -> None:
        """Return the connection to the pool; one that breaks now is replaced, for what was written is committed."""
        try:
            driver.autocommit = False
        except self._error:
            connection.invalidate()
        else:
            connection.close()

    def _wrapped(self, error: Exception, *, lost: bool) -> Exception:
        wrapped = DBAPIError.instance(
            None, None, error, self._error, hide_parameters=True, connection_invalidated=lost,
            dialect=self._engine.dialect,
        )  # fmt: skip
        without_rows(error, wrapped)
        return wrapped


def _prepared(name: str, text: str) -> tuple[str, str]:
    """Return PREPARE and EXECUTE of a statement; its hash keeps versions of it apart."""
    types: dict[str, str] = dict(_CAST.findall(text))
    names = list(dict.fromkeys(_PARAMETER.findall(text)))
    name = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%")
    given = [f"CAST(%({one})s AS {types[one]})" if one in types else f"%({one})s" for one in names]
    listed, told = (
        f"({', '.join(each)})" if names else "" for each in ([types.get(n, "unknown") for n in names], given)
    )
    return f"PREPARE {name}{listed} AS {numbered}", f"EXECUTE {name}{told}"
