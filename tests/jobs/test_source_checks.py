"""Source files of the same moment are looked at in one visit to a thread, and one that hangs holds up no other."""

import os
import threading
from dataclasses import replace

import gevent
import gevent.event
import pytest

from bridge.errors import Invalid
from bridge.file_pool import FilePool
from bridge.jobs import source_checks
from bridge.jobs.source_checks import look
from bridge.jobs.source_files import check_source
from bridge.natural_batches import Batches
from tests.jobs.test_natural_batches import results


class Visits:
    """The threads' work, counted; it begins when it is let go."""

    def __init__(self):
        self.works, self.threads = [], FilePool()
        self.go = gevent.event.Event()

    def __call__(self, work, *args):
        self.works.append((work.__name__, args[0]))
        self.go.wait()
        return self.threads(work, *args)


@pytest.fixture
def visits():
    return Visits()


@pytest.fixture
def runtime(runtime, visits):
    return replace(runtime, files=visits, batches=Batches())


@pytest.fixture
def files(runtime):
    root = runtime.settings.source_roots[0]
    for n in range(6):
        (root / f"{n}").write_bytes(b"x" * n)
    return [str(root / f"{n}") for n in range(6)]


def looks(runtime, paths):
    asked = [gevent.spawn(look, runtime, "default", path) for path in paths]
    gevent.sleep(0)
    return asked


def test_those_that_wait_are_looked_at_in_one_visit_each_with_its_own_answer(runtime, visits, files):
    asked = looks(runtime, [*files, "/etc/passwd"])
    assert [name for name, _ in visits.works] == ["check_source"] * 2, "one below the root, and what lies elsewhere"
    visits.go.set()
    told = results(asked)
    assert told[:6] == [0, 1, 2, 3, 4, 5]
    assert isinstance(told[6], Invalid)
    assert visits.works[2:] == [("_check_all", files[1:])]


def test_a_file_that_is_not_there_is_refused_alone(runtime, visits, files):
    asked = looks(runtime, [*files[:3], files[0] + "-gone", files[3]])
    visits.go.set()
    told = results(asked)
    assert isinstance(told.pop(3), Invalid)
    assert told == [0, 1, 2, 3]


def test_a_visit_that_hangs_at_one_file_holds_up_no_other(runtime, visits, files, monkeypatch):
    hanging, real = threading.Event(), check_source

    def slow(path, *more):
        if path == files[4]:
            hanging.wait(30)
        return real(path, *more)

    monkeypatch.setattr(source_checks, "check_source", slow)
    asked = looks(runtime, files)
    visits.go.set()
    others = [one for one in asked if one is not asked[4]]
    assert results(others) == [0, 1, 2, 3, 5]
    assert not asked[4].ready()
    hanging.set()
    assert results([asked[4]]) == [4]
    assert os.path.getsize(files[4]) == 4
