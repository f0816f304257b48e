"""Properties of everything that reads what a client wrote: nothing but the errors meant for it comes out."""

import base64
import json
import math
import re
import string
from datetime import datetime
from urllib.parse import quote
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from api.http.byte_range import asked_range, still_the_same
from api.http.client_address import real_address
from bridge.admission import json_guard
from bridge.admission.json_guard import LARGEST_INTEGER, LONGEST_NAME, NotJson, Refused
from bridge.cursor import decode_cursor
from bridge.errors import Invalid, NotFound
from bridge.jobs.read import job_id_of
from bridge.jobs.source_files import check_source, open_source
from tests.support.client import ok, refused

settings.register_profile("bridge", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("bridge")

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
NUMBERS = st.one_of(st.integers(-LARGEST_INTEGER, LARGEST_INTEGER), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXT.map(lambda name: name[:LONGEST_NAME]), inner)),
    max_leaves=30,
)
UNFAITHFUL = st.sampled_from(
    [math.inf, -math.inf, math.nan, 2**53 + 1, -(2**53) - 1, 10**30, "\x00", "a\x00b", "\ud800", "x\udfff"]
)


def same(one, other):
    """Equal, and of one type and sign all the way down."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(VALUES, st.booleans())
def test_what_can_be_stored_passes_the_guard_unchanged(value, escaped):
    assert same(json_guard.parse(json.dumps(value, ensure_ascii=escaped).encode()), value)
    json_guard.check(value)


@given(VALUES, UNFAITHFUL, st.sampled_from(["list", "name", "value", "deep"]))
def test_what_cannot_be_stored_is_refused_wherever_it_stands(value, bad, where):
    if where == "name" and not isinstance(bad, str):
        where = "value"
    whole = {
        "list": [value, bad],
        "name": {"a": value, bad: 1},
        "value": {"a": value, "b": bad},
        "deep": [[{"x": [bad]}]],
    }
    with pytest.raises(Refused):
        json_guard.check(whole[where])
    with pytest.raises(Refused):
        json_guard.parse(json.dumps(whole[where]).encode())


@given(VALUES, TEXT.map(lambda name: name[:LONGEST_NAME]), VALUES, st.booleans())
def test_a_name_given_twice_is_refused_however_it_is_spelled(first, name, second, escaped):
    def spelled(text):
        return '"' + "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else char for char in text) + '"'

    once, again = json.dumps(name), spelled(name) if escaped else json.dumps(name)
    body = f"[{{{once}: {json.dumps(first)}, {again}: {json.dumps(second)}}}]"
    with pytest.raises(Refused) as refusal:
        json_guard.parse(body.encode())
    assert "twice" in refusal.value.reason


@given(st.binary())
@example(b'{"a":' * 1000)
@example(b"[" * 200_000)
@example(b'"\\ud800\\u0041"')
@example(b"-" * 1000)
def test_any_bytes_are_a_value_no_json_or_refused(raw):
    try:
        value = json_guard.parse(raw)
    except (NotJson, Refused):
        return
    assert same(value, json.loads(raw))
    assert same(orjson.loads(orjson.dumps(value)), value)


@given(VALUES, st.data())
def test_json_that_was_damaged_never_becomes_something_else(value, data):
    raw = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    try:
        parsed = json_guard.parse(bytes(raw))
    except (NotJson, Refused):
        return
    assert same(parsed, json.loads(bytes(raw)))


@given(st.one_of(st.text(), st.from_regex(r"bytes=[0-9]{0,4}-[0-9]{0,4}", fullmatch=True)), st.integers(0, 300))
@example("bytes=-", 10)
@example("bytes=²-", 10)
@example("bytes=" + "9" * 5000 + "-", 10)
def test_a_range_lies_in_the_file_or_is_ignored_or_refused(header, size):
    try:
        asked = asked_range(header, size)
    except RequestedRangeNotSatisfiable:
        return
    if asked is not None:
        assert 0 <= asked.start < asked.stop <= size


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 100))
def test_a_proper_range_is_exactly_what_was_asked_for(first, last, size):
    whole = bytes(range(size))
    if first > last:
        assert asked_range(f"bytes={first}-{last}", size) is None
    elif first < size:
        asked = asked_range(f"bytes={first}-{last}", size)
        assert asked is not None
        assert whole[asked.start : asked.stop] == whole[first : last + 1]
    if last:
        asked = asked_range(f"bytes=-{last}", size)
        assert asked is not None
        assert whole[asked.start : asked.stop] == whole[-last:]


@given(st.text())
def test_an_if_range_is_the_files_only_when_it_names_it(header):
    assert still_the_same(header, "etag", 1e9) == (header.strip() == '"etag"')


@given(
    st.one_of(
        st.text(), st.uuids().map(str), st.uuids().map(lambda one: one.hex), st.text("0123456789abcdef-{}", max_size=40)
    )
)
def test_a_job_id_is_a_uuid_in_its_one_form_or_none(text):
    try:
        assert str(job_id_of(text)) == text.lower()
    except NotFound:
        assert not re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text)


def sealed(value):
    """As a cursor is, whatever is in it."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@given(st.one_of(st.text(), VALUES.map(sealed)))
def test_a_foreign_cursor_is_refused(cursor):
    with pytest.raises(Invalid):
        decode_cursor(cursor, datetime, UUID)


@pytest.mark.parametrize(("place", "kind"), [
    ("2026-01-01T00:00:00", datetime), ("-1", int), ("2147483648", int), ("1.5", int), ("", str), ("a b", str),
    ("x" * 101, str), (5, int), (None, str),
])  # fmt: skip
def test_a_cursor_whose_place_is_of_another_kind_is_refused(place, kind):
    with pytest.raises(Invalid, match="next_cursor"):
        decode_cursor(sealed([place]), kind)


@given(st.text(), st.text(), st.lists(st.ip_addresses().map(str)))
def test_an_address_is_found_whatever_is_claimed(peer, forwarded, trusted):
    assert real_address(peer, forwarded, trusted)


PARTS = st.lists(
    st.one_of(
        st.sampled_from(["..", ".", "", "file", "link", "dir", "etc", "passwd", "%2e%2e", "~"]), st.text(max_size=9)
    )
)


@given(PARTS, st.booleans())
def test_whatever_the_path_only_what_is_under_the_root_is_read(tmp_path_factory, parts, below):
    root = tmp_path_factory.getbasetemp() / "parsers-root"
    if not root.exists():
        root.mkdir()
        (root / "file").write_bytes(b"inside")
        (root / "link").symlink_to("/etc/passwd")
        (root / "dir").symlink_to("/")
    path = "/".join([str(root) if below else "", *parts])
    try:
        with open_source(path, [root]) as file:
            assert file.read() == b"inside"
        check_source(path, [root])
    except NotFound:
        with pytest.raises(Invalid):
            check_source(path, [root])


@settings(max_examples=50)
@given(st.text(string.printable, max_size=300).map(lambda text: re.sub(r"[\r\n\x0b\x0c]", "", text).strip()))
def test_any_idempotency_key_is_taken_or_refused_by_name(client, key):
    # The same body each time: a key may come twice, with spaces around it that do not count.
    fields = {"source_file_path": client.source(name="one.bin"), "content_type": "audio", "ingestion_task_id": "one"}
    answer = client.post("", fields, headers={"Idempotency-Key": key})
    if 1 <= len(key) <= 255:
        assert ok(client.post("", fields, headers={"Idempotency-Key": key})) == ok(answer)
    else:
        assert "Idempotency-Key" in refused(answer, 422, "validation")["errors"]


@settings(max_examples=100)
@given(
    st.sampled_from(
        ["status", "content_type", "worker_id", "ingestion_task_id", "created_after", "limit", "cursor", "wait"]
    ),
    st.text(max_size=300),
    st.sampled_from(["", "poll"]),
)
@example("created_after", "9999-12-31T23:59:59-23:59", "")
@example("created_after", "0001-01-01T00:00:00+23:59", "")
def test_no_query_is_a_server_error(client, name, value, path):
    query = f"worker_id=w&content_types=none&wait=0&{name}={quote(value)}" if path else f"{name}={quote(value)}"
    assert client.get(f"{path}?{query}").status_code in (200, 422)
