"""How many of something a process does at once has a bound for each key, each tenant and all."""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from bridge.admission.at_once import AtOnce
from bridge.caller import Caller
from bridge.errors import TooMany


def of(tenant):
    return Caller(uuid4(), tenant)


def test_what_is_done_at_once_is_bounded_for_key_tenant_and_process_and_given_back():
    downloads, mine, its = AtOnce("Downloads", 5, most=6, of_tenant=4, of_key=3), of("a"), of("a")
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(downloads.begin(mine))
        with pytest.raises(TooMany) as refusal:
            downloads.begin(mine)
        assert refusal.value.retry_after == 5
        other = downloads.begin(its)
        with pytest.raises(TooMany):
            downloads.begin(its)  # the tenant's
        for _ in range(2):
            held.enter_context(downloads.begin(of("b")))
        with pytest.raises(TooMany):
            downloads.begin(of("c"))  # the process'
        other.close()
        downloads.begin(of("c")).close()
    assert not downloads._budget.used
