"""The OpenAPI document: flask-smorest's, completed with what holds for every route.

flask-smorest describes parameters, bodies and the answers that a view names. The rest follows from rules and is added
here: statuses that any route can give, headers of requests and answers, descriptions, and a form that client
generators understand.
"""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response
from flask_smorest import Api

from api.http.documented_errors import problem_answer
from api.http.views import json_response
from bridge.version import version

PATH = "/openapi.json"
METHODS = ("get", "head", "put", "post", "patch", "delete")
CONTACT = {"name": "The maintainers of jobbridge"}
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_HEADERS = {
    "X-Request-ID": "The ID that the client sent, or a new one; also in the request's log lines.",
    "X-Job-Status": "The job's state: any call tells a worker of a cancellation.",
    "Retry-After": "Seconds after which to send the request again.",
    "WWW-Authenticate": "Bearer.",
    "Allow": "The methods allowed at this path.",
    "ETag": "Identifies this version of the file; for If-Range and If-None-Match.",
    "Last-Modified": "Time of the file's last modification.",
    "Accept-Ranges": "bytes.",
    "Content-Disposition": "attachment, and a file name.",
    "Repr-Digest": "The SHA-256 of the whole file (RFC 9530), if known or declared.",
    "Content-Range": "The range of bytes in this answer and the total; with 416 only the total.",
}
HEADERS = {
    name: {"schema": _COUNT if name == "Retry-After" else _TEXT, "description": meaning}
    for name, meaning in _HEADERS.items()
}
OF_STATUS = {"401": ("WWW-Authenticate",), "405": ("Allow",), "429": ("Retry-After",), "503": ("Retry-After",)}
OF_FILES = ("ETag", "Last-Modified", "Accept-Ranges", "Content-Disposition", "Repr-Digest")
CONDITIONS = {
    "Range": "One range of bytes, such as `bytes=1000-`: answered with 206. Others are ignored.",
    "If-Range": "The ETag of the part that the client has: if the file has changed, the answer is the whole file.",
    "If-None-Match": "An ETag: the answer is 304 while it is the file's.",
}


def add_document(app: Flask, api: Api) -> None:
    """Serve the completed document at /openapi.json. It is built at the first request and kept."""
    made: list[dict[str, Any]] = []

    def show() -> Response:
        if not made:
            made.append(complete(api.spec.to_dict()))
        return json_response(made[0])

    app.add_url_rule(PATH, "openapi", show, methods=["GET"])


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Complete the document, in place, with what holds for every route, and return it."""
    document["info"] |= {"version": version(), "contact": CONTACT, "license": LICENSE}
    document["components"]["headers"] = HEADERS
    document["paths"] = {path.rstrip("/"): item for path, item in document["paths"].items()}  # both spellings answer
    for path, _, operation in operations(document):
        _describe(path, operation)
        _declare_statuses(operation)
        _declare_headers(path, operation)
    for schema in _sent(document):
        _without_defaults(schema)
    _portable_patterns(document)
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path, method, operation)."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _describe(path: str, operation: dict[str, Any]) -> None:
    operation.setdefault("operationId", path.strip("/"))
    operation.setdefault("security", [])
    scopes = operation.get("x-scopes")
    who = f"For a key with scope {' or '.join(scopes)}." if scopes else "No key is needed."
    told = operation.get("description") or operation["summary"]
    operation["description"] = f"{told.rstrip('.')}. {who}"


def _declare_statuses(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    for status in ("405", "500"):
        answers.setdefault(status, problem_answer(int(status)))
    if "413" in answers:  # the route reads a body
        answers.setdefault("408", problem_answer(408))
    operation["responses"] = dict(sorted(answers.items()))


def _declare_headers(path: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    about_a_job = "{job_id}" in path
    serves_files = "416" in answers
    for status, answer in answers.items():
        names = ["X-Request-ID", *OF_STATUS.get(status, ())]
        if about_a_job and status not in ("401", "404", "405", "408", "429", "500", "503"):
            names.append("X-Job-Status")
        if serves_files and status in ("200", "206", "304"):
            names.extend(OF_FILES)
        if serves_files and status in ("206", "416"):
            names.append("Content-Range")
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    if serves_files:
        conditions = [
            {"in": "header", "name": name, "schema": _TEXT, "description": meaning}
            for name, meaning in CONDITIONS.items()
        ]
        operation["parameters"] = [*operation.get("parameters", ()), *conditions]


def _sent(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of request bodies."""
    schemas = document["components"]["schemas"]
    todo = [operation["requestBody"] for _, _, operation in operations(document) if "requestBody" in operation]
    found: dict[str, dict[str, Any]] = {}
    while todo:
        for node in _walk(todo.pop()):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in found:
                found[name] = schemas[name]
                todo.append(schemas[name])
    return list(found.values())


def _without_defaults(schema: dict[str, Any]) -> None:
    """Tell defaults in words: openapi-typescript takes a member that has a default for required."""
    for field in schema.get("properties", {}).values():
        if (default := field.pop("default", None)) not in (None, {}):
            field["description"] = f"{field.get('description', '')} Default: {str(default).lower()}.".strip()


def _portable_patterns(document: dict[str, Any]) -> None:
    r"""Write `$` for Python's `\Z`, which other dialects of regular expressions lack."""
    for node in _walk(document):
        if isinstance(pattern := node.get("pattern"), str):
            node["pattern"] = pattern.replace(r"\Z", "$")


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _walk(inner)
