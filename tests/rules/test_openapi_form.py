"""The form of the OpenAPI document is the stored one: whoever changes the outside sees it, and says so in his commit.

`make openapi` stores the form as it is now.
"""

import json
import os
from pathlib import Path

import pytest

STORED = Path(__file__).with_name("openapi_form.json")
#: Words for readers: changing them changes nothing for a client.
TEXTS = {"summary", "description", "title", "example", "examples"}
#: Their members have names of our own, which may be one of these words.
NAMED = {"properties", "schemas", "headers", "responses", "parameters", "paths", "content"}


def form_of(node, names=False):
    """Return the node without its texts. `names`: its keys are names of our own."""
    if isinstance(node, list):
        return [form_of(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: inner for key, inner in node.items() if names or key not in TEXTS}
    return {key: form_of(inner, not names and key in NAMED) for key, inner in kept.items()}


def parts_of(document):
    """Return the form by its parts: every operation, every component, and the rest."""
    whole = form_of(document)
    paths, components = whole.pop("paths"), whole.pop("components")
    parts = {f"{method.upper()} {path}": form for path, item in paths.items() for method, form in item.items()}
    parts |= {f"{kind} {name}": form for kind, members in components.items() for name, form in members.items()}
    for name in ("info", "tags"):  # the version and words
        whole.pop(name, None)
    return parts | {"document": whole}


def as_text(parts):
    """Return a part a line, so that a difference shows what has changed."""
    lines = [f"{json.dumps(name)}: {json.dumps(parts[name], sort_keys=True)}" for name in sorted(parts)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def test_the_form_of_the_document_is_the_stored_one(document):
    parts = parts_of(document)
    if os.environ.get("RENEW_OPENAPI_FORM"):
        STORED.write_text(as_text(parts))
    stored = json.loads(STORED.read_text())
    differ = sorted(name for name in parts.keys() | stored.keys() if parts.get(name) != stored.get(name))
    assert differ == [], f"The outside has changed: {differ}. If that is meant, `make openapi` stores the new form."


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"description": "Old."}, {"description": "New.", "example": 5}, True),
        ({"properties": {"title": {"type": "string"}}}, {"properties": {}}, False),
        ({"properties": {"title": {"title": "Old"}}}, {"properties": {"title": {}}}, True),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, False),
        ({"responses": {"200": {"description": "Old."}}}, {"responses": {"200": {}, "404": {}}}, False),
    ],
)
def test_a_change_of_words_changes_no_form_and_any_other_does(before, after, same):
    assert (form_of(before) == form_of(after)) == same
