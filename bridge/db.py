"""The connection to PostgreSQL."""

import select
import time
from typing import Any

import orjson
from gevent.monkey import get_original
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from bridge.settings import Settings

# A statement waits for a lock far shorter than the shortest lease (10 s), and for anything far shorter than a
# client waits for an answer.
SESSION = "-c lock_timeout=2000 -c statement_timeout=15000 -c idle_in_transaction_session_timeout=15000 -c timezone=UTC"
# Whatever the role or the database says. As a setting of the driver it would be set and reset, in a round trip each,
# whenever a connection is taken for a statement that commits itself (bridge.runtime.Runtime.single).
READ_COMMITTED = r"-c default_transaction_isolation=read\ committed"

# A connection that was idle for this long is tested before it is used: what is in between may have dropped it silently.
# Longer than a busy process leaves any idle, so that it costs nothing there.
RESTED_SECONDS = 20.0

# libpq's buffer for what is sent grows to the largest statement, and is kept as long as the connection: eight of them
# that have each stored a document of 16 MB kept 128 MB. One that has sent a larger statement than this is closed when
# its user is done with it, and the next user connects anew. What is received comes in pieces that are not larger.
KEPT_BYTES = 1024 * 1024

# In an API process: beyond what a statement may take. A server that is frozen, or a pooler before one that is, answers
# the network's own questions, so that nothing below would end the wait.
ANSWER_SECONDS = 20.0


def make_engine(settings: Settings, *, pool_size: int = 8, name: str = "bridge") -> Engine:
    """Make an engine; what runs on `connect()` is rolled back unless it is committed, `begin()` commits at its end.

    `pool_size` connections are kept, and none is opened beyond them: a caller that finds none free waits up to 5 s.
    Under load, connections that come and go (a login and cold caches each) halve what the others achieve.
    Parked polls hold none. A connection that was cut while idle is replaced, and with it all that are as old, before
    anybody uses it. Raises SettingsError if BRIDGE_DATABASE_URL is not set.
    """
    from psycopg2.extensions import connection, cursor

    class Connection(connection):
        has_grown = False  # has sent a statement of more than KEPT_BYTES

    class Cursor(cursor):
        def execute(self, query: Any, vars: Any = None) -> None:
            try:
                super().execute(query, vars)
            finally:
                if self.query is not None and len(self.query) > KEPT_BYTES:
                    its: Any = self.connection
                    its.has_grown = True

    engine = create_engine(
        settings.require("database_url"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=False,
        pool_use_lifo=True,
        pool_recycle=1800,
        json_serializer=_json,
        hide_parameters=True,  # they are documents, and errors are logged
        connect_args={
            "connection_factory": Connection,
            "cursor_factory": Cursor,
            "client_encoding": "utf8",  # whatever PGCLIENTENCODING, the role or the URL say
            "connect_timeout": 5,
            "application_name": name,
            "options": f"{SESSION} {READ_COMMITTED}",
            "target_session_attrs": "read-write",
            # A network that swallows packets is noticed within 20 s while something is sent, and within 45 s while an
            # answer is waited for; the kernel's own patience is 15 minutes and 2 hours. Under gevent this also bounds
            # the connecting: psycopg2 then heeds no connect_timeout.
            "tcp_user_timeout": 20000,  # milliseconds
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )
    _replace_what_was_cut(engine)
    _set_without_asking(engine)
    event.listen(engine, "handle_error", _forget_rows)
    return engine


def _json(value: Any) -> str:
    """Return JSON as short as it was sent: in ASCII a character would take up to three times as many bytes."""
    return orjson.dumps(value).decode()


def _forget_rows(context: ExceptionContext) -> None:
    without_rows(context.original_exception, context.sqlalchemy_exception)


def without_rows(original: BaseException, ours: BaseException | None) -> None:
    """Reduce an error to PostgreSQL's message; details and statement hold rows, and errors are logged."""
    said = getattr(getattr(original, "diag", None), "message_primary", None)
    if said:
        original.args = (said,)
        if ours is not None:
            ours.args = (f"({type(original).__name__}) {said}",)


def _replace_what_was_cut(engine: Engine) -> None:
    """Test a connection on its way out of the pool.

    One system call tells whether the server has sent something unasked, which usually closes the connection (a
    restart, idle_session_timeout, a pooler or load balancer that closes idle ones). Only then, and after a long rest,
    is a ping sent. A dead connection ends its whole generation, so that the next one is not found dead in turn.
    """
    poll: Any = get_original("select", "poll")  # gevent's own would let others run at each look

    @event.listens_for(engine, "checkin")
    def rest(connection: Any, record: Any) -> None:
        if connection is None or connection.closed:
            return
        if connection.has_grown:
            record.invalidate()
            return
        if "stirs" not in record.info:
            poller = poll()
            poller.register(connection.fileno(), select.POLLIN)
            record.info["stirs"] = poller.poll
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def wake(connection: Any, record: Any, _: Any) -> None:
        if connection.closed:
            raise InvalidatePoolError("a connection was closed on its way back")
        since = record.info.get("rests_since")  # gone with the connection when that is replaced
        if since is None or (time.monotonic() - since < RESTED_SECONDS and not record.info["stirs"](0)):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("a connection was cut while it was idle") from error


def _set_without_asking(engine: Engine) -> None:
    """Let a statement commit itself, and its connection begin transactions again, without a round trip.

    SQLAlchemy gives the driver the level, which sends it: two more round trips for each statement. A connection that is
    cut at this moment is closed: SQLAlchemy lets the driver's own error through there, so on its way back it would
    take its place in the pool with it for good, and turn what was written and committed into a failure.
    """
    dialect = engine.dialect
    set_level = dialect.set_isolation_level

    def set_or_close(connection: Any, level: Any) -> None:
        try:
            if connection.isolation_level is not None:
                connection.isolation_level = None  # what the session has, READ_COMMITTED
            if level in ("AUTOCOMMIT", "READ COMMITTED"):
                connection.autocommit = level == "AUTOCOMMIT"
            else:
                set_level(connection, level)
        except dialect.loaded_dbapi.Error:
            connection.close()

    vars(dialect)["set_isolation_level"] = set_or_close  # of this engine alone


def make_cooperative() -> None:
    """Let psycopg2 yield to other greenlets while it waits, ANSWER_SECONDS at most.

    Only for a process that gevent has patched.
    """
    import psycopg2.extensions
    from gevent.socket import wait_read, wait_write  # type: ignore[attr-defined]

    def wait(connection: "psycopg2.extensions.connection") -> None:
        end = time.monotonic() + ANSWER_SECONDS
        silent = psycopg2.OperationalError(f"PostgreSQL did not answer within {ANSWER_SECONDS:.0f} s")
        while True:
            state = connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            left = max(0.001, end - time.monotonic())
            if state == psycopg2.extensions.POLL_READ:
                wait_read(connection.fileno(), timeout=left, timeout_exc=silent)
            elif state == psycopg2.extensions.POLL_WRITE:
                wait_write(connection.fileno(), timeout=left, timeout_exc=silent)
            else:
                raise psycopg2.OperationalError(f"psycopg2 is in an unknown state: {state}")

    psycopg2.extensions.set_wait_callback(wait)


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of the error; None if there is none, as when it does not answer. Safe to log."""
    state: str | None = getattr(getattr(error, "orig", error), "pgcode", None)
    return state


def is_of_a_row(error: BaseException) -> bool:
    """Return whether a statement over many rows failed because of one of them, and surely changed nothing.

    PostgreSQL refused a value (class 22, 23 or 54), or psycopg2 could not encode it; or the statement lost to another
    one (40), as a single row of it may not. Not a lost connection: what was asked may have been done.
    """
    state = sqlstate(error)
    if state is None:
        return isinstance(error, ValueError)
    return state[:2] in {"22", "23", "40", "54"} and state != "40003"


def is_unavailable(error: BaseException) -> bool:
    """Return whether PostgreSQL could not be reached or gave up for a reason that passes: try again later."""
    original = getattr(error, "orig", error)
    state = sqlstate(error)
    if state is None:
        import psycopg2
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        return isinstance(original, psycopg2.OperationalError | psycopg2.InterfaceError | PoolTimeout)
    return state[:2] in {"08", "25", "40", "53", "55", "57", "58"}
