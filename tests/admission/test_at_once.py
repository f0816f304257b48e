"""How many of something a process does at once has a bound for each key, each tenant and all."""

from contextlib import ExitStack
from uuid import uuid4

import pytest

from bridge.admission.at_once import AtOnce
from bridge.errors import TooMany


def test_what_is_done_at_once_is_bounded_for_key_tenant_and_process_and_given_back():
    downloads, mine, its = AtOnce("Downloads", 5, most=6, of_tenant=4, of_key=3), uuid4(), uuid4()
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(downloads.begin(mine, "a"))
        with pytest.raises(TooMany) as refusal:
            downloads.begin(mine, "a")
        assert refusal.value.retry_after == 5
        other = downloads.begin(its, "a")
        with pytest.raises(TooMany):
            downloads.begin(its, "a")  # the tenant's
        for _ in range(2):
            held.enter_context(downloads.begin(uuid4(), "b"))
        with pytest.raises(TooMany):
            downloads.begin(uuid4(), "c")  # the process'
        other.close()
        downloads.begin(uuid4(), "c").close()
    assert not any(budget.used for budget in (downloads._by_key, downloads._by_tenant))
