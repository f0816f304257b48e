"""What the bridge needs of PostgreSQL and Redis is asked at the start, and said in one line."""

import socketserver
import threading
import uuid

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from bridge import server_requirements
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from bridge.settings import load_settings
from tests.support.command import refusal
from tests.support.own_database import own_database
from tests.support.quick_command import quick_jobbridge as jobbridge


@pytest.fixture
def superuser(servers):
    engine = create_engine(servers.postgres.superuser_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def old_redis():
    """Speaks enough of the protocol to say that it is Redis 5."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    self.rfile.readline()
                    words.append(self.rfile.readline().strip().upper())
                told = b"# Server\r\nredis_version:5.0.7\r\n"
                known = {b"PING": b"+PONG\r\n", b"INFO": b"$%d\r\n%s\r\n" % (len(told), told), b"CLIENT": b"+OK\r\n"}
                self.wfile.write(known.get(words[0], b"-ERR unknown command\r\n"))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_utf8_is_refused_in_one_line(servers, encoding, tmp_path):
    options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    with own_database(servers.database_url, options) as url:
        expected = (
            f"jobbridge: the database {url.rpartition('/')[2]} is encoded as {encoding}, the bridge needs UTF8:"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
        given = {"BRIDGE_DATABASE_URL": url, "BRIDGE_REDIS_URL": servers.redis_url}
        for command in (["db", "upgrade"], ["api"], ["celery"], ["up", "--port", str(free_port())]):
            done = jobbridge(*command, cwd=tmp_path, **given)
            assert done.returncode == 2, done
            assert done.stderr.splitlines()[-1] == expected
        assert "UTF8" in jobbridge("db", "check", cwd=tmp_path, **given).stdout


def test_a_redis_that_is_too_old_is_refused_in_one_line(new_database, old_redis, tmp_path):
    given = {"BRIDGE_DATABASE_URL": new_database(), "BRIDGE_REDIS_URL": old_redis}
    for command in ("api", "celery"):
        line = refusal(jobbridge(command, cwd=tmp_path, **given))
        assert line == "jobbridge: Redis is 5.0.7: the bridge needs 6.2 or later, or Valkey"


def test_a_postgresql_that_is_too_old_is_refused_in_one_line(new_database, monkeypatch, core_engine):
    monkeypatch.setattr(server_requirements, "LEAST_POSTGRESQL", 99)
    found = server_requirements.of_postgresql(core_engine)
    assert found[0].fatal
    assert "the bridge needs 99 or later" in found[0].why


def test_servers_as_they_should_be_are_not_found_fault_with(new_database, servers, tmp_path):
    done = jobbridge(
        "db", "check", cwd=tmp_path, BRIDGE_DATABASE_URL=new_database(), BRIDGE_REDIS_URL=servers.redis_url
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_server_that_is_not_named_is_not_asked(servers, new_database):
    assert server_requirements.findings(None, servers.redis_url) == []
    assert server_requirements.findings(new_database(), None) == []
    assert server_requirements.findings(None, None) == []


def test_servers_that_do_not_answer_are_not_waited_for():
    nowhere = f"127.0.0.1:{free_port()}"
    assert server_requirements.findings(f"postgresql+psycopg2://x:y@{nowhere}/z", f"redis://{nowhere}") == []


def test_settings_that_write_documents_into_the_log_are_said_with_what_ends_it(servers, superuser, new_database):
    role, url = f"r{uuid.uuid4().hex[:8]}", new_database()
    telling = {"log_min_error_statement": "error", "log_error_verbosity": "default", "log_statement": "all"}
    telling |= {
        "log_min_duration_statement": "1000",
        "log_transaction_sample_rate": "0.5",
        "log_min_duration_sample": "5",
    }
    with superuser.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'x'"))
        for name, value in telling.items():
            connection.execute(text(f"ALTER ROLE {role} SET {name} = '{value}'"))
    as_role = url.replace(url.partition("//")[2].partition("@")[0], f"{role}:x")
    [found] = server_requirements.findings(as_role, None)
    assert not found.fatal
    assert all(f"{name} = " in found.why for name in telling)
    with superuser.connect() as connection:
        for statement in found.why.partition("as a superuser run ")[2].split(";")[:-1]:
            connection.execute(text(statement))
    assert server_requirements.findings(as_role, None) == []
    with superuser.connect() as connection:
        connection.execute(text(f"DROP ROLE {role}"))


def test_the_client_encoding_is_ours_whatever_role_and_environment_say(new_database, superuser, monkeypatch):
    url = new_database()
    with superuser.connect() as connection:
        connection.execute(
            text(f"ALTER ROLE jobbridge IN DATABASE {url.rpartition('/')[2]} SET client_encoding = 'LATIN1'")
        )
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    engine = make_engine(load_settings({"BRIDGE_DATABASE_URL": f"{url}?client_encoding=latin1"}))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW client_encoding")) == "UTF8"
        assert connection.scalar(text("SELECT :word"), {"word": "Ærger ✓ 🦔"}) == "Ærger ✓ 🦔"
    engine.dispose()


def test_an_error_of_the_database_tells_no_row_and_no_parameter(core_engine):
    statement = text("INSERT INTO sweeps (name, ran_at, seconds, changed, total) VALUES (:word, NULL, 1, 1, 1)")
    with core_engine.begin() as connection, pytest.raises(IntegrityError) as refused:
        connection.execute(statement, {"word": "Stachelschwein"})
    texts = [str(refused.value), repr(refused.value), str(refused.value.orig), repr(refused.value.orig)]
    assert not any("Stachelschwein" in told for told in texts), texts
    assert "null value in column" in texts[0]
