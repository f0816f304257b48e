"""Webhooks of many: who hangs holds up nobody, what is left is kept, the list shows it."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID

import pytest

from bridge.errors import NotFound
from bridge.jobs.purge import purge
from bridge.outbox import senders, webhooks
from bridge.outbox.senders import Senders
from bridge.outgoing.post import Answer
from bridge.runtime import Runtime
from tests.support.calling import LOCAL, Calling
from tests.support.core import KEY
from tests.support.racing import meanwhile
from tests.support.receiver import Receiver, answer, receiver
from tests.support.waiting import wait_until


@pytest.fixture
def core(make_runtime: Callable[..., Runtime]) -> Calling:
    return Calling(make_runtime(**LOCAL))


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


def test_a_receiver_that_hangs_delays_no_other_and_takes_few_places(core: Calling, there: Receiver) -> None:
    hang = Event()
    with receiver() as hanging:
        hanging.answers = lambda handler, _: hang.wait(30) and answer(200)(handler, _)
        held = [core.ended(hanging.url) for _ in range(12)]
        quick = [core.ended(there.url) for _ in range(8)]
        core.senders.wake()
        wait_until(lambda: len(there.got) == 8, "the others to be delivered")
        wait_until(lambda: len(hanging.got) == 4, "as many as may to wait for it")
        assert {core.hooks(one)[0].tries for one in held} == {0, 1}
        hang.set()
        assert core.senders.idle(60)
    assert {core.hooks(one)[0].state for one in (*held, *quick)} == {"delivered"}


@pytest.mark.parametrize("remembered", [1000, 1])
def test_tenants_take_turns_whatever_one_has_waiting(
    core: Calling, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """One tenant names a hundred receivers that hang; of two slots another's are served between them."""
    monkeypatch.setattr(senders, "MOST_REMEMBERED", remembered)
    sent: list[str] = []

    def note(url: str, body: bytes, headers: Any) -> Answer:
        sent.append(json.loads(body)["tenant"])
        return Answer(204, "", None)

    greedy = [core.ended(f"http://127.0.0.1:{port}/") for port in range(1001, 1031)]
    core.sql("UPDATE webhooks SET created_at = created_at - interval '1 h', next_at = next_at - interval '1 h'")
    other = core.ended("http://127.0.0.1:1/")
    core.sql("INSERT INTO api_keys (id, prefix, secret_hash, name, tenant, scopes, webhook_secret)"
             " VALUES (:id, 'p', '', 'n', 'late', ARRAY['submit'], 'x')", id=str(UUID(int=77)))  # fmt: skip
    core.sql("UPDATE webhooks SET tenant = 'late', key_id = :key WHERE job_id = :id", id=other, key=str(UUID(int=77)))
    one_slot = Senders(core.runtime, note, slots=1)
    one_slot.wake()
    assert one_slot.idle(60)
    assert len(sent) == len(greedy) + 1
    assert "late" in sent[:2]


def test_a_tenant_that_names_many_receivers_is_looked_at_in_pieces(core: Calling) -> None:
    for port in range(1001, 1006):
        core.ended(f"http://127.0.0.1:{port}/")
    core.sql("UPDATE webhooks SET next_at = now() + interval '1 h' WHERE receiver <> '127.0.0.1:1004'")
    with core.engine.connect() as connection:
        look = partial(webhooks.next_receiver, connection, "default", busy=[], most=2)
        assert look(after="") == (None, "127.0.0.1:1002")
        assert look(after="127.0.0.1:1002") == ("127.0.0.1:1004",) * 2
        assert look(after="127.0.0.1:1004") == (None, "127.0.0.1:1002")  # the round begins anew
        core.sql("UPDATE webhooks SET next_at = now() WHERE receiver = '127.0.0.1:1001'")
    with core.engine.connect() as connection:
        assert webhooks.next_receiver(connection, "default", "127.0.0.1:1004", []) == ("127.0.0.1:1001",) * 2


def test_what_is_on_its_way_is_not_purged_and_the_list_shows_it(core: Calling, there: Receiver) -> None:
    there.answers = answer(500)
    job_ids = [core.ended(there.url) for _ in range(3)]
    core.send()
    core.sql("UPDATE continuations SET next_at = NULL")
    core.sql("UPDATE remote_jobs SET completed_at = completed_at - interval '60 days'")
    assert purge(core.runtime) == 0
    rows, cursor = webhooks.page(core.runtime, "default", None, 2, None)
    more, end = webhooks.page(core.runtime, "default", None, 2, cursor)
    assert [str(row.job_id) for row in (*rows, *more)] == job_ids[::-1]
    assert end is None
    assert rows[0].receiver == f"127.0.0.1:{there.port}"
    assert webhooks.page(core.runtime, "other", None, 2, None) == ([], None)
    with pytest.raises(NotFound):
        webhooks.resend(core.runtime, "other", UUID(job_ids[0]))
    core.sql("UPDATE webhooks SET next_at = NULL")
    assert purge(core.runtime) == 3
    assert core.sql("SELECT count(*) FROM webhooks")[0][0] == 0


def test_a_job_that_is_deleted_as_its_webhook_is_taken_calls_nobody(core: Calling, there: Receiver) -> None:
    deleted, other = core.ended(there.url), core.ended(there.url)
    delete = lambda: core.sql("DELETE FROM remote_jobs WHERE id = :id", id=deleted)  # noqa: E731
    core.sql("UPDATE webhooks SET next_at = now() + interval '1 h' WHERE job_id = :id", id=other)
    with meanwhile(core.engine, "AND webhook_secret IS NOT NULL", delete):
        core.send()
    assert not there.got
    core.due()
    core.send()
    assert len(there.got) == 1


def test_key_is_not_the_workers(core: Calling) -> None:
    """The key that signs is that of who created the job, not of who did it."""
    job_id = core.ended("http://127.0.0.1:9/")
    assert core.hooks(job_id)[0].key_id == core.asks.key_id != KEY.key_id
