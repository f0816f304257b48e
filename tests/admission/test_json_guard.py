"""The JSON guard: what it lets through comes back identical, what it refuses is named, and a refused result ends."""

import json

import orjson
import pytest

from bridge.admission import json_guard
from bridge.admission.json_guard import DEEPEST, LARGEST_INTEGER, LONGEST_NAME, MOST_VALUES, NotJson, Refused
from tests.support.client import ok, refused

JSON = {"Content-Type": "application/json"}

FAITHFUL = [
    {"n": LARGEST_INTEGER, "m": -LARGEST_INTEGER},
    {"big": 1e22, "huge": 1.7976931348623157e308, "tiny": 5e-324, "tenth": 0.1, "small": 1.5e-7, "whole": 2.0},
    {"text": "ä 🙂 \u2028 \x7f \x01 \\u0000 : \\", "": "an empty name", "a:b": "::"},
    {"z": 1, "a": {"y": [1, [2, [{"x": None}]]]}, "m": [True, False, None, "", [], {}]},
]
NOT_JSON = [
    b"{",
    b"nul",
    b"[1,]",
    b"{'a': 1}",
    b'{"a" 1}',
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b"01",
    b"{} {}",
    b"[NaN,]",
    b'[Infinity, "\xff"]',
    b'["NaN"NaN]',
]
REFUSED = [
    (b'{"task_options": {"a": [0, "\\u0000"]}}', "task_options.a[1]", "NUL"),
    (b'{"task_options": {"\\u0000": 1}}', "task_options", "NUL"),
    (b'{"a": "\\ud800"}', "a", "surrogate"),
    (b'{"a": ["\\udc00\\ud800"]}', "a[0]", "surrogate"),
    (b'{"\\ud800": 1}', "", "surrogate"),
    (b'{"a": 9007199254740993}', "a", "2^53"),
    (b'{"a": -9007199254740993}', "a", "2^53"),
    (b'{"a": 18446744073709551616}', "a", "2^53"),
    (b'{"a": [' + b"9" * 5000 + b"]}", "a[0]", "2^53"),
    (b'{"a": 1e400}', "a", "double"),
    (b'{"a": {"b": 1, "b": 2}}', "a.b", "twice"),
    (b'{"a": 1, "a": "\\u003a"}', "a", "twice"),
    (b'{"a": "::", "b": 1, "b": "x"}', "b", "twice"),
    (b'{"' + b"k" * (LONGEST_NAME + 1) + b'": 1}', "", "name"),
    (b"[" * 100 + b"]" * 100, "[0]" * DEEPEST, "nested"),
    (b"[" * 100_000 + b"]" * 100_000, "", "nested"),
    (b"[" + b"0," * MOST_VALUES + b"0]", "", "values"),
    (b"{" + b'"a":0,' * MOST_VALUES + b'"a":0}', "", "values"),
]


@pytest.mark.parametrize("value", FAITHFUL)
def test_what_the_guard_lets_through_is_what_was_sent(value):
    assert json_guard.parse(json.dumps(value).encode()) == value
    assert json_guard.parse(orjson.dumps(value)) == value


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_no_json_is_malformed(text):
    with pytest.raises(NotJson):
        json_guard.parse(text)


@pytest.mark.parametrize(("text", "place", "reason"), REFUSED)
def test_what_could_not_be_stored_is_refused_with_its_place(text, place, reason):
    with pytest.raises(Refused) as refusal:
        json_guard.parse(text)
    assert refusal.value.place == place[:200]
    assert reason in refusal.value.reason


@pytest.mark.parametrize("text", [b'{"a": NaN}', b'{"a": [Infinity]}', b'{"a": -Infinity}'])
def test_nan_and_infinity_are_refused_as_no_json(client, text):
    with pytest.raises(Refused) as refusal:
        json_guard.parse(text)
    assert not refusal.value.is_json
    refused(client.request("POST", "", data=text, headers=JSON), 400, "malformed")


def test_a_value_of_ours_with_too_many_values_is_refused_too():
    with pytest.raises(Refused, match="values"):
        json_guard.check([0] * MOST_VALUES)


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (b'{"jobs": [1, "\\u0000"]}', [None, "Must not contain a NUL character."]),
        (b'{"jobs": [{"a": 1e400}, {}]}', ["a: Must not contain a number that is too large for a double.", None]),
    ],
)
def test_what_is_wrong_within_an_item_is_put_in_its_place(text, errors):
    items = json_guard.parse_each(text, "jobs")["jobs"]
    assert [str(one).removeprefix("body: ") if isinstance(one, Refused) else None for one in items] == errors


def test_a_list_that_is_given_twice_is_refused_whole():
    with pytest.raises(Refused, match="jobs: Must not be given twice"):
        json_guard.parse_each(b'{"jobs": 1, "jobs": ["\\u0000"]}', "jobs")


def test_negative_zero_stays_negative():
    assert str(json_guard.parse(b'{"a": -0.0}')["a"]) == "-0.0"


def test_the_deepest_nesting_passes():
    assert json_guard.parse(b"[" * DEEPEST + b"]" * DEEPEST)


def test_task_options_and_metadata_come_back_identical_and_can_be_listed(client):
    options = {str(i): value for i, value in enumerate(FAITHFUL)} | {"minus": -0.0}
    job = client.held("faithful", task_options=options)
    ok(client.result(job, metadata=options, processing_time=1e22))
    listed = ok(client.get(""))["jobs"][0]
    result = ok(client.get(f"{job['job_id']}/result"))
    for seen in (job["task_options"], listed["task_options"], listed["metadata"], result["metadata"]):
        assert json.dumps(seen, sort_keys=True) == json.dumps(options, sort_keys=True)
    assert result["processing_time"] == 1e22


@pytest.mark.parametrize(("text", "place", "reason"), REFUSED[:13])
def test_a_create_that_is_refused_names_the_field(client, text, place, reason):
    problem = refused(client.request("POST", "", data=text, headers=JSON), 422, "validation")
    field = place.partition(".")[0].partition("[")[0] or "body"
    assert reason in problem["errors"][field][0]


def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large(bridge, client):
    with client.begin("POST", "", {**JSON, "Transfer-Encoding": "chunked"}) as connection:
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        sent = 0
        try:
            while sent <= 8 * bridge.settings.max_body_bytes:
                connection.sendall(chunk)
                sent += 0x100000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 8 * bridge.settings.max_body_bytes, "all of it was read"


@pytest.mark.parametrize("number", ["+5", " 5", "5 ", "1e1", "٣", "1_0", "0x5", "5.0", "", "9" * 400])
@pytest.mark.parametrize("name", ["max_jobs", "lease"])
def test_an_integer_in_a_query_is_digits(client, name, number):
    assert name in refused(client.poll(**{name: number}), 422)["errors"]


@pytest.mark.parametrize("number", ["+5", " 5", "1e1", "٣", "nan", "inf", "1_0", ".5", "5."])
def test_a_number_in_a_query_is_digits_and_a_point(client, number):
    assert "wait" in refused(client.poll(wait=number), 422)["errors"]


@pytest.mark.parametrize("query", ["worker_id=a%00b&content_types=audio", "worker_id=a&content_types=audio&x%00=1"])
def test_a_nul_in_a_query_is_refused(client, query):
    refused(client.get(f"poll?{query}"), 422)


UNSTORABLE = [
    b'"\\u0000"',
    b'"\\ud800"',
    b"123456789012345678901234567890",
    b"9007199254740993",
    b"1e400",
    b'{"a": 1, "a": 2}',
    b'1}, "success": false, "x": {"v": 1',  # success is given twice
    b"[" * 100 + b"]" * 100,
    b"NaN",
]


@pytest.mark.parametrize("inside", [True, False], ids=["token in the body", "token in the header"])
@pytest.mark.parametrize("value", UNSTORABLE)
def test_a_result_of_the_holder_that_cannot_be_stored_ends_the_job(client, value, inside):
    job = client.held("unstorable")
    token = b'"lease_token": "' + job["lease_token"].encode() + b'", ' if inside else b""
    body = b"{" + token + b'"success": true, "metadata": {"v": ' + value + b"}}"
    headers = JSON if inside else {**JSON, "X-Lease-Token": job["lease_token"]}
    answer = client.request("PUT", f"{job['job_id']}/result", data=body, headers=headers)
    refused(answer, 422)
    assert answer.headers["X-Job-Status"] == "failed"
    whole = client.job(job["job_id"])
    assert whole["status"] == "failed"
    assert "cannot be stored" in whole["error_message"]
    assert whole["attempts"][0]["how"] == "failed"
    refused(client.request("PUT", f"{job['job_id']}/result", data=body, headers=headers), 422)


@pytest.mark.parametrize("value", UNSTORABLE[:3])
def test_such_a_result_of_anybody_else_changes_nothing(bridge, client, value):
    job = client.held("unstorable")
    other = bridge.client(client.tenant)
    body = b'{"success": true, "metadata": {"v": ' + value + b"}}"
    refused(other.request("PUT", f"{job['job_id']}/result", data=body, headers=JSON), 409, "lease_lost")
    stale = {**JSON, "X-Lease-Token": "stale"}
    refused(client.request("PUT", f"{job['job_id']}/result", data=body, headers=stale), 409, "lease_lost")
    assert client.status(job["job_id"]) == "processing"


@pytest.mark.parametrize("token", [b'"\\u0000"', b'"\\ud800"', b"1e999", b'"a", "lease_token": "a"'])
def test_a_token_that_cannot_be_one_is_nobodys(client, token):
    """Found by bench/hostile.py: a NUL in the token of a refused body reached PostgreSQL."""
    job = client.held("unreadable", lease=None)
    body = b'{"success": true, "lease_token": ' + token + b"}"
    refused(client.request("PUT", f"{job['job_id']}/result", data=body, headers=JSON), 409, "lease_lost")
    assert client.status(job["job_id"]) == "processing"
