"""What is told of a JSON text before it is parsed, found in pieces, is what a look at the whole finds."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.admission.json_guard import MOST_VALUES, Refused, parse
from bridge.admission.json_text import PIECE, count, encodes, has_more_values, holds

STRUCTURE = st.text(alphabet='",[]{}\\:aä', max_size=12)
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), STRUCTURE),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(STRUCTURE, inner, max_size=5)),
    max_leaves=20,
)


def values_in(value):
    """Return what the guard counts: what follows a comma, or objects and arrays; the more of both."""
    commas = opened = 0
    below = [value]
    while below:
        if isinstance(one := below.pop(), list | dict):
            opened += 1
            commas += max(0, len(one) - 1)
            below += one.values() if isinstance(one, dict) else one
    return commas, opened


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES, st.integers(0, 40), st.sampled_from(["x", "\\", '"', ","]))
def test_values_are_counted_wherever_a_piece_ends(value, before, padding):
    size = (PIECE - before) // len(json.dumps(padding)[1:-1])
    text = json.dumps([padding * size, value]).encode()
    commas, opened = values_in([padding, value])
    assert has_more_values(text, max(commas + 1, opened)) is False
    assert has_more_values(text, commas) is True
    assert has_more_values(text, opened - 1) is True


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet=":\\u03x", max_size=12), st.integers(0, 12))
def test_characters_and_escapes_are_found_wherever_a_piece_ends(text, before):
    whole = b"x" * (PIECE - before) + text.encode()
    assert count(whole, b":") == text.count(":")
    assert holds(whole, b"\\u003") is ("\\u003" in text)


def test_a_lone_surrogate_is_found_in_every_piece():
    assert encodes("ä" * PIECE + "😀")
    assert not encodes("ä" * PIECE + "\udfff")


@pytest.mark.parametrize(
    "text",
    [b"[" + b'",",' * 1_000_000 + b'""]', b'""' * 600_000 + b"," * MOST_VALUES, b"[" + b"[]," * MOST_VALUES + b"0]"],
)
def test_too_many_values_are_refused_before_anything_is_parsed(text):
    with pytest.raises(Refused, match=f"more than {MOST_VALUES} values"):
        parse(text)


def test_a_long_text_of_commas_and_quotes_is_one_value():
    text = ',"[' * 300_000
    assert parse(json.dumps(text).encode()) == text
