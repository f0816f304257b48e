"""Names whose servers never answer take the look-ups of their own tenant alone."""

import threading

import gevent
import pytest

from bridge.jobs.look_ups import OF_TENANT, THREADS, LookUps
from tests.support.waiting import wait_until

THERE = ["192.0.2.1"]


class Names:
    """Those that begin with `slow` are answered once `go` is set."""

    def __init__(self):
        self.go, self.asked = threading.Event(), []

    def __call__(self, host, port):
        self.asked.append(host)
        if host.startswith("slow"):
            assert self.go.wait(60)
        elif host == "none":
            raise OSError("no such name")
        return THERE


@pytest.fixture
def names():
    names = Names()
    yield names
    names.go.set()


def test_slow_names_of_one_tenant_keep_no_other_waiting_and_hold_its_share_until_they_are_answered(names):
    look_ups = LookUps(seconds=0.3, ask=names)
    slow = [gevent.spawn(look_ups, "a", f"slow{n}", 443) for n in range(3 * THREADS)]
    for n in range(2 * THREADS):
        assert look_ups("b", f"quick{n}", 443) == THERE
    for one in slow:
        with pytest.raises(OSError, match="does not answer"):
            one.get(timeout=60)
    assert len([host for host in names.asked if host.startswith("slow")]) == OF_TENANT
    with pytest.raises(OSError, match="does not answer"):
        look_ups("a", "quick", 443)  # their threads have not come back
    assert look_ups("b", "quick", 443) == THERE
    names.go.set()
    wait_until(lambda: gevent.sleep(0.01) or not look_ups._turns.used, "the threads back", 30)
    assert look_ups("a", "late", 443) == THERE
    assert names.asked.count("quick") == 1


def test_what_the_resolver_says_is_what_the_caller_hears(names):
    with pytest.raises(OSError, match="no such name"):
        LookUps(ask=names)("a", "none", 443)
    assert "127.0.0.1" in LookUps()("a", "localhost", 443)
