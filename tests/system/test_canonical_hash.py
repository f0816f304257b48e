"""The hash of canonical JSON is that of json.dumps, which earlier versions stored, and lets others go on."""

import gc
import hashlib
import json
import time
from datetime import UTC, datetime

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import canonical_hash as module
from bridge.canonical_hash import canonical_hash
from models.job_state import Priority

LONG = 'a\u00e9\U0001f600\x00"\\/\x7f\u2028' * 9000
ATOMS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    ATOMS | st.text(max_size=5) | st.sampled_from([LONG, Priority.HIGH]),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
)


def _expected(value, separators):
    text = json.dumps(value, sort_keys=True, separators=separators, default=str)
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
def small_pieces(monkeypatch):
    """So small that a value has many of each."""
    for name, size in (("PIECE", 7), ("TURN", 3), ("SORTED", 2)):
        monkeypatch.setattr(module, name, size)


@settings(max_examples=40, deadline=None)
@given(VALUES, st.sampled_from([(",", ":"), (", ", ": ")]))
def test_it_is_the_hash_of_json_dumps(value, separators):
    assert canonical_hash(value, separators) == _expected(value, separators)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("value", [
    {f"n{n}": [n, {}] for n in range(30)}, [*range(10), "x", None, [], True], LONG, {"b": {"b": 1, "a": 2}, "a": ()},
    datetime(2030, 1, 1, tzinfo=UTC), {"": {"": ""}}, [[1], 2.5, "\ud83d"],
])  # fmt: skip
def test_it_is_so_in_however_many_pieces(value):
    assert canonical_hash(value, (",", ":")) == _expected(value, (",", ":"))


DEAR = {
    "many names": lambda: {f"n{n * 7919 % 240_007}": 0 for n in range(240_000)},
    "many lists": lambda: [[[]] for _ in range(120_000)],
    "numbers": lambda: [1.5e-300 + n for n in range(240_000)],
    "letters beyond ASCII": lambda: {"x": "\u00e9" * 8_000_000},
}


@pytest.mark.parametrize("what", DEAR)
def test_what_is_dear_is_hashed_in_turns(what):
    value = DEAR[what]()
    longest, last, ended = 0.0, time.thread_time(), False

    def others():
        nonlocal longest, last
        while not ended:
            gevent.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    running = gevent.spawn(others)
    gevent.sleep(0)
    gc.disable()  # a full collection of all that the tests have made is none of it
    try:
        canonical_hash(value, (",", ":"))
    finally:
        gc.enable()
    ended = True
    running.join()
    assert longest < 0.05  # of this thread's own processor time
