"""What an answer or a body does that cannot go on, part by part; whole connections are tests/http/test_download.py."""

import ctypes
import errno
import io
from contextlib import ExitStack, nullcontext
from functools import partial
from types import SimpleNamespace

import gevent.socket
import pytest
from flask import Flask, request
from gunicorn.http.errors import LimitRequestLine, NoMoreData
from marshmallow import ValidationError
from sqlalchemy.exc import DataError, DBAPIError

from api import garbage_collection, memory_allocator
from api.gunicorn_worker import Worker
from api.http import incoming, remote_response, sending
from api.http.bytes_response import _part, _redirect, bytes_response
from api.http.claiming import _gone
from api.http.local_only import from_another_site
from api.http.sending import _in_pieces
from api.http.tus import lively, pieces
from api.http.views import json_response
from api.routes import download, results_at_once
from api.schemas.strict import StrictFloat
from bridge.admission.at_once import AtOnce
from bridge.admission.byte_budget import Budget
from bridge.blobs.append_to_upload import Cut
from bridge.errors import Conflict, NotFound, TooMany, Unavailable
from bridge.file_pool import FilePool
from bridge.jobs.bucket_sources import Seen
from bridge.outgoing.connect import NotSent

SEEN = Seen(("bucket", "key"), 8, "e-tag", 1_700_000_000.0, None)  # type: ignore[arg-type]
NOBODY = (None, None)  # no tenant and no key
SHORT, WHOLE = [b"0123"], [b"0123", b"4567"]


@pytest.fixture
def asked():
    """Be in a request, for what asks flask for it."""
    with Flask("asked").test_request_context():
        yield


def fails(error, before=()):
    """Yield these pieces, then raise."""
    yield from before
    raise error


BROKEN = [
    (lambda: fails(NotFound("gone"), SHORT), "the source's store does not go on"),
    (lambda: fails(Unavailable("away"), SHORT), "the source's store does not go on"),
    (lambda: iter(SHORT), "the source's store ended before the end"),
    (lambda: iter(WHOLE), None),
]


@pytest.mark.parametrize(("comes", "why"), BROKEN)
def test_an_object_that_does_not_come_whole_cuts_the_answer_short_and_is_let_go(asked, monkeypatch, comes, why):
    monkeypatch.setattr(remote_response, "object_pieces", lambda *_: comes())
    kept = ExitStack()
    closed: list[bool] = []
    kept.callback(closed.append, True)
    answer = remote_response._object(None, SEEN, "a b.pdf", kept)  # type: ignore[arg-type]
    assert (answer.content_length, answer.headers["ETag"]) == (8, '"e-tag"')
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a b.pdf"'
    with nullcontext() if why is None else pytest.raises(BrokenPipeError, match=why):
        assert b"".join(answer.response) == b"01234567"  # type: ignore[arg-type]
    answer.response.close()  # type: ignore[union-attr]
    assert closed == [True]


@pytest.mark.parametrize(
    ("comes", "why"),
    [(lambda: iter(SHORT), "ended before the end"), (lambda: fails(NotSent("away"), SHORT), "does not go on")],
)
def test_a_source_at_an_address_that_does_not_come_whole_cuts_the_answer_short(comes, why):
    body = remote_response._bytes(SimpleNamespace(served=range(8), fetched=SimpleNamespace(pieces=comes)))  # type: ignore[arg-type]
    with pytest.raises(BrokenPipeError, match=why):
        list(body)


@pytest.mark.parametrize("url", ["s3://files/a.pdf", "https://files.example.org/a.pdf"])
def test_a_redirect_says_that_the_worker_must_judge_only_addresses_that_a_producer_named(asked, monkeypatch, url):
    monkeypatch.setattr(remote_response, "address_for_worker", lambda _, named: f"{named}?signed")
    answer = remote_response.redirect_to_source(None, url, "x.bin")  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{url}?signed")
    assert (remote_response.FETCHED_BY in answer.headers) == url.startswith("https:")


def test_a_redirect_to_the_store_has_the_headers_that_the_store_lacks(asked):
    whole = bytes_response(8, "e-tag", 1_700_000_000.0, lambda _: iter(WHOLE))
    whole.headers.update({"Repr-Digest": "sha-256=:x:", "Content-Disposition": "attachment"})
    answer = _redirect(whole, "https://store.example.org/a?signed")
    assert (answer.status_code, answer.headers["Location"]) == (307, "https://store.example.org/a?signed")
    assert {answer.headers[name] for name in ("ETag", "Repr-Digest", "Content-Disposition")} == {
        '"e-tag"', "sha-256=:x:", "attachment",
    }  # fmt: skip
    assert answer.get_data() == b""


@pytest.mark.parametrize(("served", "sent"), [(range(8), WHOLE), (range(2, 5), [b"23", b"4"]), (range(6, 8), [b"67"])])
def test_the_range_of_a_text_is_cut_from_its_pieces(served, sent):
    assert list(_part(iter(WHOLE), served)) == sent


@pytest.mark.parametrize("error", [NotFound("gone"), Unavailable("away"), DataError("SELECT", {}, Exception())])
def test_an_answer_whose_document_cannot_be_read_breaks_off_after_what_was_sent(error):
    answer = _in_pieces((b"[", b"]"), ["document"], lambda _: fails(error, SHORT))
    assert [next(answer), next(answer)] == [b"[", b"0123"]
    with pytest.raises(BrokenPipeError) as broken:
        next(answer)
    assert broken.value.errno == errno.EPIPE


def full():
    """Return a budget from which a claim has taken all."""
    budget = Budget(4, of_tenant=4, of_key=4)
    assert budget.take(NOBODY, 4)
    return budget


def test_a_claim_that_gets_no_room_for_its_answer_in_time_takes_none(asked, monkeypatch):
    answers = full()
    monkeypatch.setattr(sending, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(sending, "limits", lambda: SimpleNamespace(answers=answers))
    request.url_rule = SimpleNamespace(endpoint=sending.POLL)  # type: ignore[assignment]
    assert sending._room(NOBODY, 1, streamed=True) is None
    assert answers.used == 4
    answers.give_back(NOBODY, 4)
    held = sending._room(NOBODY, 1, streamed=True)
    assert held is not None
    assert answers.used == 1
    held.close()
    assert answers.used == 0


def test_an_object_counts_as_a_download_until_its_answer_is_closed(asked, monkeypatch):
    downloads = AtOnce("Downloads", 5, most=1, of_tenant=1, of_key=1)
    monkeypatch.setattr(download, "runtime", lambda: None)
    monkeypatch.setattr(remote_response, "caller", lambda: SimpleNamespace(whose=NOBODY))
    monkeypatch.setattr(remote_response, "limits", lambda: SimpleNamespace(remote_downloads=downloads))
    monkeypatch.setattr(remote_response, "look_at_object", lambda *_: SEEN)
    job = SimpleNamespace(id="job", source_file_path="s3://files/a.pdf")
    answer = download.source_response(job)  # type: ignore[arg-type]
    with pytest.raises(TooMany, match="too many at once"):
        download.source_response(job)  # type: ignore[arg-type]
    answer.response.close()  # type: ignore[union-attr]
    assert download.source_response(job).content_length == SEEN.size  # type: ignore[arg-type]


@pytest.mark.parametrize(("body", "refused"), [(b"[1]", False), (b"[" + b"1," * 12_000 + b"1]", True)])
def test_a_short_body_of_many_values_waits_for_room_as_a_long_one_does(monkeypatch, body, refused):
    monkeypatch.setattr(incoming, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(incoming, "caller", lambda: SimpleNamespace(whose=NOBODY))
    bodies = full()
    monkeypatch.setattr(incoming, "limits", lambda: SimpleNamespace(bodies=bodies))
    is_refused = pytest.raises(TooMany, match="large bodies") if refused else nullcontext()
    with Flask("asked").test_request_context(method="POST", data=body), is_refused:
        assert incoming.read_body(request) == body


def test_a_local_file_that_shrinks_while_it_is_sent_cuts_the_answer_short(asked, tmp_path):
    (tmp_path / "file").write_bytes(b"0123")
    with (tmp_path / "file").open("rb") as file, pytest.raises(BrokenPipeError, match="the file has shrunk"):
        list(download._bytes(file, range(8), FilePool()))


@pytest.mark.parametrize("lost", [True, False])
def test_a_download_goes_on_only_while_the_job_is_its_workers(lost):
    def renew():
        if lost:
            raise Conflict("Another has it.")
        return SimpleNamespace(cancel_requested=False)

    with pytest.raises(BrokenPipeError, match="no longer this worker's") if lost else nullcontext():
        assert list(lively(WHOLE, partial(download._unless_lost, renew), 0)) == WHOLE


class Stream:
    """A body of which the first piece comes, and then what a connection does."""

    def __init__(self, then):
        self._comes = [b"0123", then]

    def read(self, _):
        piece = self._comes.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


@pytest.mark.parametrize("then", [NoMoreData(b""), OSError(errno.ECONNRESET, "reset"), b""])
def test_a_piece_of_an_upload_that_ends_early_is_cut_and_what_came_is_kept(then):
    came: list[bytes] = []
    sent = SimpleNamespace(environ={"wsgi.input": Stream(then)}, content_length=8)
    with pytest.raises(Cut):
        came.extend(pieces(sent))  # type: ignore[arg-type]
    assert came == [b"0123"]
    signs: list[int] = []
    assert list(lively(iter(WHOLE), lambda: signs.append(1), 0)) == WHOLE
    assert len(signs) == 2


def test_a_poll_whose_client_has_gone_or_leaves_too_much_unread_gets_no_job():
    here, there = gevent.socket.socketpair()  # type: ignore[attr-defined]
    asks, room = SimpleNamespace(whose=NOBODY), Budget(4, of_tenant=4, of_key=4)
    with here, there:
        gone = _gone(room, asks, here)  # type: ignore[arg-type]
        assert not gone()
        there.sendall(b"the next request")
        assert not gone()
        assert _gone(full(), asks, here)()  # type: ignore[arg-type]
        assert not _gone(room, asks, None)()  # type: ignore[arg-type]
        here.recv(100)
        there.close()
        assert gone()
        here.close()
        assert gone()


def test_an_origin_that_is_no_address_is_another_site():
    with Flask("asked").test_request_context(headers={"Origin": "http://[::1", "Host": "localhost"}):
        assert from_another_site()


def test_what_is_no_json_is_a_defect_and_no_answer():
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        json_response({"a": object()})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), True, "0.5", None])
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(ValidationError):
        StrictFloat().deserialize(number)
    assert StrictFloat().deserialize(1) == 1.0


class Broken(Exception):
    """What psycopg2 raises."""

    def __init__(self, pgcode):
        self.pgcode = pgcode


def test_of_results_at_once_one_that_postgresql_refuses_is_refused_and_a_defect_is_none_of_it(monkeypatch):
    monkeypatch.setattr(results_at_once, "spend", lambda *_: "pending")
    one = SimpleNamespace(job_id="id", token="token")
    told = results_at_once._told(one, DBAPIError("INSERT", {}, Broken("22P05")))  # type: ignore[arg-type]
    assert (told["status"], told["problem"]["status"]) == ("pending", 422)
    with pytest.raises(DBAPIError):
        results_at_once._told(one, DBAPIError("INSERT", {}, Broken("42P01")))  # type: ignore[arg-type]


def test_a_process_without_descriptors_says_so_once_and_anything_else_each_time():
    said = []
    log = SimpleNamespace(error=lambda words, **_: said.append(words))
    worker = SimpleNamespace(_said_full=-100.0, log=log)
    full, other = OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "Input/output error")
    for error in (full, full, other, other):
        Worker._failed(worker, None, OSError, error, None)  # type: ignore[arg-type]
    assert said == ["file_descriptors_exhausted", "greenlet_failed", "greenlet_failed"]


def test_a_refusal_whose_client_has_gone_is_no_error():
    said: list[str] = []
    log = SimpleNamespace(log=lambda level, words, kind: said.append(kind), debug=said.append)
    here, there = gevent.socket.socketpair()  # type: ignore[attr-defined]
    there.close()
    with here:
        Worker.handle_error(SimpleNamespace(log=log), None, here, None, LimitRequestLine(9000, 8190))  # type: ignore[arg-type]
    assert said == ["LimitRequestLine", "the client of a refused request has gone"]


def test_where_the_system_has_no_such_allocator_or_memory_to_read_nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: io)
    assert memory_allocator.give_back() is False
    monkeypatch.setattr(garbage_collection, "_STATM", tmp_path / "none")
    assert garbage_collection.FullCollections().begin() is False
