"""Every crash point × {kill, stop}: whatever dies or stands still there, the job goes its way, once.

The shorter half of the cases runs in `make test`, all of them in `make points`.
"""

import ast
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from bridge import crash_points, names
from bridge.cli.local.checkout import ROOT
from bridge.crash_points import POINTS
from bridge.settings import SettingsError, load_settings
from tests.support import crash_flows as flows
from tests.support import crash_flows_uploads as uploads
from tests.support.broker import handed_over
from tests.support.crash_flows_webhooks import called
from tests.support.crash_site import Site
from tests.support.running import Running
from tests.support.sound import all_sound
from tests.support.waiting import wait_until

Flow = Callable[[Site], list[str]]
# What is one statement commits itself, as a claim from the mirror and a success do: nothing lies between.
_CHANGES: list[Flow] = [flows.released, flows.cancelled, flows.restarted, flows.expired]

# What leads past each point; each flow of it is a case.
CASES: dict[str, list[Flow]] = {
    "create.before_commit": [uploads.uploaded_life],
    "create.after_commit": [flows.life],
    "create.after_push": [flows.life],
    "batch.before_commit": [flows.batch],
    "batch.after_commit": [flows.batch],
    "batch.before_nudge": [flows.batch],
    "intake.before_create": [flows.intake],
    "intake.after_create": [flows.intake],
    "claim.after_catch": [flows.parked_life],
    "claim.after_take": [flows.life],
    "claim.before_commit": [flows.unmirrored_life],
    "claim.after_commit": [flows.life, flows.parked_life],
    "claim.before_answer": [flows.life, flows.parked_life],
    "named.after_commit": [flows.named],
    "named.before_answer": [flows.named],
    "download.before_first_byte": [flows.life],
    "download.between_pieces": [flows.life],
    "heartbeat.after_commit": [flows.life],
    "change.before_commit": _CHANGES,
    "change.after_commit": [flows.life, *_CHANGES],
    "change.before_nudge": [flows.life, flows.cancelled],
    "change.before_answer": [flows.life],
    "result.before_naming": [flows.with_files],
    "result.after_naming": [flows.with_files],
    "checkpoint.before_naming": [uploads.checkpointed],
    "checkpoint.after_naming": [uploads.checkpointed],
    "checkpoint.before_answer": [uploads.checkpointed],
    "results.before_answer": [flows.together],
    "unserved.before_nudge": [flows.unserved],
    "nudge.before_send": [flows.life],
    "continuation.after_take": [flows.life],
    "continuation.after_send": [flows.life],
    "continuation.after_mark": [flows.life],
    "confirm.before_commit": [flows.confirmed],
    "confirm.after_commit": [flows.confirmed],
    "bulk.between_batches": [flows.bulk],
    "release_due.before_commit": [flows.due],
    "release_due.after_commit": [flows.due],
    "promote.after_commit": [flows.promoted],
    "repair.before_forget": [flows.left_over],
    "rebuild.before_mark": [flows.rebuilt],
    "purge.before_commit": [flows.purged],
    "purge.between_batches": [flows.purged],
    "revoke.before_commit": [flows.revoked],
    "revoke.after_commit": [flows.revoked],
    "revoke.after_take": [flows.revoked],
    "resend.after_commit": [flows.resent],
    "webhooks.after_take": [called],
    "webhooks.after_send": [called],
    "webhooks.after_mark": [called],
    "webhooks.before_call": [called],
    "webhooks.after_resend": [called],
    "upload.before_object": [uploads.uploaded],
    "upload.after_object": [uploads.uploaded],
    "upload.before_commit": [uploads.uploaded],
    "upload.after_commit": [uploads.uploaded],
    "join.before_object": [uploads.joined],
    "join.after_object": [uploads.joined],
    "join.before_commit": [uploads.joined],
    "collect.before_commit": [uploads.collected],
    "collect.after_objects": [uploads.collected],
}
ALL = [(point, flow, action) for point in CASES for flow in CASES[point] for action in ("kill", "stop")]
# One action for each point, in turns.
SHORT = [(point, CASES[point][0], ("kill", "stop")[n % 2]) for n, point in enumerate(CASES)]
PARAMETERS = [
    pytest.param(*case, id=f"{case[0]}-{case[1].__name__}-{case[2]}", marks=[] if case in SHORT else pytest.mark.points)
    for case in ALL
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash-points")


@pytest.fixture(scope="module")
def armed_bridge(start_bridge, directory) -> Iterator[Running]:
    bridge = start_bridge(
        beat=False,
        api_processes="2",
        crash_points=str(directory),
        continuation_task="pipeline.receive",
        continuation_queue="nobody",
        retry_backoff="base=0.1,factor=1,max=0.1,jitter=0",
        retention_days="1",
        priority_aging_seconds="3600",
        webhook_allow="http://127.0.0.1:*",
        webhook_networks="127.0.0.1",
    )
    yield bridge
    all_sound(bridge)  # also what a process did that went on after its case
    bridge.stop()


@pytest.fixture
def site(armed_bridge, directory) -> Site:
    for file in directory.iterdir():
        file.unlink()
    site = Site(armed_bridge, armed_bridge.client())

    def whole() -> bool:
        site.sweep(names.RECONCILE)
        armed_bridge.stack.keep_up()
        return site.again(lambda **how: site.client.get("/readyz", **how)).json() == {"status": "ok", "redis": "ok"}

    wait_until(whole, "the bridge to be whole")
    return site


def arm(directory: Path, point: str, action: str) -> Path:
    """Arm a point, in one step; the file that tells that it was reached."""
    assert point in POINTS
    (directory / f"{point}.new").write_text(action)
    (directory / f"{point}.new").rename(directory / point)
    return directory / f"{point}.reached"


def in_its_place(process: psutil.Process, *states: str) -> bool:
    try:
        return process.status() in states
    except psutil.NoSuchProcess:
        return "gone" in states


def beyond_every_bound(site: Site, process: psutil.Process) -> None:
    """Let time pass as if the process stood still: PostgreSQL ends its transactions (15 s), every lease runs out."""
    ports = [end.laddr.port for end in process.net_connections("tcp") if end.status == psutil.CONN_ESTABLISHED]
    idle = "FROM pg_stat_activity WHERE client_port = ANY(:ports) AND state = 'idle in transaction'"

    def none_left() -> bool:
        return not site.bridge.sql(f"SELECT pg_terminate_backend(pid) {idle}", ports=ports)

    wait_until(none_left, "its transactions to be ended")
    back = ", ".join(f"{name} = {name} - interval '70 s'" for name in ("lease_expires_at", "ack_by", "started_at"))
    site.bridge.sql(f"UPDATE remote_jobs SET {back} WHERE tenant = :t AND status = 'processing'", t=site.client.tenant)
    site.sweep(names.EXPIRE)


@pytest.mark.parametrize(("point", "flow", "action"), PARAMETERS)
@pytest.mark.slow
def test_what_dies_or_stands_still_at_a_point_costs_no_job(site, directory, point, flow, action):
    reached = arm(directory, point, action)
    with ThreadPoolExecutor(1) as pool:
        led = pool.submit(flow, site)
        wait_until(lambda: reached.exists() or led.done(), f"{point} to be reached")
        assert reached.exists(), f"{flow.__name__} did not lead past {point}: {led.exception() or led.result()}"
        pid = wait_until(lambda: reached.read_text(), "its process' ID")
        try:
            process = psutil.Process(int(pid))
        except psutil.NoSuchProcess:  # it has died, and was reaped
            process = None
        try:
            if action == "kill":
                wait_until(lambda: process is None or in_its_place(process, "gone", "zombie"), "the process to die")
            else:
                assert process is not None
                wait_until(lambda: in_its_place(process, "stopped"), "the process to stop")
                beyond_every_bound(site, process)
                wait_until(led.done, "the others to go on")
        finally:
            if action == "stop" and process is not None:
                process.send_signal(signal.SIGCONT)
        job_ids = led.result(60)
    settled(site, job_ids)


def settled(site: Site, job_ids: list[str]) -> None:
    """All is as if nothing had happened: each job at its end, each outcome one effect, nothing left in the mirror."""
    statuses = "SELECT DISTINCT status FROM remote_jobs WHERE tenant = :t"
    assert [row.status for row in site.bridge.sql(statuses, t=site.client.tenant)] == [site.expected] * bool(job_ids)
    for job_id in job_ids[:3]:
        told = {message.id: message.kwargs["status"] for message in handed_over(site.bridge, job_id)}
        outcomes = [row.n for row in site.bridge.sql("SELECT n FROM continuations WHERE job_id = :i", i=job_id)]
        assert sorted(told) == [f"continue-{job_id}-{n}" for n in sorted(outcomes)]
        assert told[f"continue-{job_id}-{max(outcomes)}"] == site.expected
    with redis.Redis.from_url(site.bridge.settings.require("redis_url"), decode_responses=True) as mirror:

        def empty() -> bool:
            site.sweep(names.RECONCILE)
            lists = (f"*{site.client.tenant}:*:pending:*", f"*{site.client.tenant}:*:claimed:*")
            return not [key for pattern in lists for key in mirror.scan_iter(pattern)]

        wait_until(empty, "the mirror to settle")
    all_sound(site.bridge, site.client.tenant)


def test_an_id_that_repair_puts_back_while_its_first_taker_is_only_slow_is_claimed_once(site, directory):
    reached = arm(directory, "claim.after_take", "wait")
    job_id = site.create()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: site.client.poll(wait=0, lease=60, timeout=90))
        wait_until(reached.exists, "a process to take the ID")
        job = wait_until(lambda: site.sweep(names.RECONCILE) or site.poll(), "another to claim it")[0]
        (directory / "claim.after_take.go").touch()
        assert slow.result(60).json()["jobs"] == []
    assert (job["job_id"], job["attempt"]) == (job_id, 1)
    site.do(job)
    site.handed_over(job_id)
    settled(site, [job_id])


# The registry.


def test_every_point_has_a_case_and_is_in_the_code_and_every_call_names_a_point():
    assert set(CASES) == set(POINTS)
    called: list[ast.expr] = []
    for room in ("bridge", "api", "tasks"):
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            if any(
                isinstance(node, ast.ImportFrom) and node.module == "bridge.crash_points" for node in ast.walk(tree)
            ):
                calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
                called += [call.args[0] for call in calls if getattr(call.func, "id", "") == "reach"]
    literals = [name.value for name in called if isinstance(name, ast.Constant)]
    assert len(literals) == len(called), "a point is named by a literal"
    assert sorted(map(str, literals)) == sorted(POINTS)


def test_the_first_process_that_comes_by_is_met_at_the_nth_pass_and_once(tmp_path):
    arm(tmp_path, "nudge.before_send", "wait 3")
    (tmp_path / "nudge.before_send.go").touch()
    crash_points.check(tmp_path)
    crash_points.arm(tmp_path)
    try:
        for passes in range(1, 5):
            crash_points.reach("nudge.before_send")
            crash_points.reach("claim.after_take")  # not armed
            crash_points.reach("claim.after_take", having=[])
            assert (tmp_path / "nudge.before_send.reached").exists() == (passes >= 3)
        assert (tmp_path / "nudge.before_send.reached").read_text() == str(os.getpid())
        crash_points.check(tmp_path)
    finally:
        crash_points.arm(None)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("create.after_lunch", "kill", "create.after_lunch is not a crash point"),
        ("create.after_push", "sing", "create.after_push must hold one of kill, stop, wait"),
        ("create.after_push", "kill x", "create.after_push must hold one of kill, stop, wait"),
        ("create.after_push", "", "create.after_push must hold one of kill, stop, wait"),
    ],
)
def test_no_process_starts_with_a_point_that_nobody_knows(tmp_path, name, content, why):
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=f"BRIDGE_CRASH_POINTS: {why}"):
        load_settings({"BRIDGE_CRASH_POINTS": str(tmp_path)})
    with pytest.raises(SettingsError, match=r"BRIDGE_CRASH_POINTS: .* is not a directory"):
        load_settings({"BRIDGE_CRASH_POINTS": str(tmp_path / name)})
