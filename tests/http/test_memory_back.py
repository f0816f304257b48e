"""What large bodies took is given back: a process does not stay as large as it was while it read them."""

import ctypes
import os

import pytest

from api import memory_allocator
from bench.gauge import memory
from bench.hostile_kinds import DEAR
from tests.support.client import refused
from tests.support.memory_peak import processes
from tests.support.waiting import wait_until

MOST_LEFT = 60  # MiB; more than 110 stayed
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")


@pytest.mark.slow
@glibc
def test_what_bodies_that_were_made_to_be_dear_took_comes_back(own_bridge):
    bridge = own_bridge(api_processes="1", celery=False, beat=False)
    client = bridge.client()
    [process] = processes(bridge)
    for _ in range(50):
        client.create()
    idle = memory(process.pid)
    for body in DEAR * 3:
        answer = client.request("POST", "", data=body, headers={"Content-Type": "application/json"})
        refused(answer, answer.status_code)
        assert answer.status_code in (400, 422)
    wait_until(lambda: memory(process.pid) < idle + MOST_LEFT, "the memory to come back")


@glibc
def test_the_knobs_are_taken():
    pid = os.fork()
    if pid == 0:  # they cannot be taken back
        os._exit(0 if memory_allocator.give_back() else 1)
    assert os.waitpid(pid, 0)[1] == 0
