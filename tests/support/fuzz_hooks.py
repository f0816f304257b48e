"""What tests/http/test_fuzz.py tells schemathesis, which loads this file by itself (SCHEMATHESIS_HOOKS)."""

import os
from typing import Any

import schemathesis

OWN_PREFIX = os.environ["FUZZ_OWN_PREFIX"]  # of the key that all this is done with


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Keys are revoked, whether they were made up or made here, but for the one in our hand: all else would be 401."""
    if case.method.upper() == "DELETE" and case.path_parameters.get("prefix") == OWN_PREFIX:
        case.path_parameters["prefix"] = "jb_00000000"


schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")  # pieces of uploads
