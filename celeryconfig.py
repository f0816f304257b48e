"""Celery's settings, made from the bridge's settings; the reason for each stands beside it."""

from typing import Any

from kombu import Exchange, Queue

from bridge import names
from bridge.periodic_work import SWEEP_PERIODS
from bridge.redis_url import for_celery, service
from bridge.settings import load_settings

_settings = load_settings()
_aging = _settings.priority_aging_seconds

broker_url = result_backend = for_celery(_settings.broker_url) if _settings.broker_url else None
_service = service(_settings.broker_url or "")
# Only bridge.enqueue_remote_job answers; everything else's result is in PostgreSQL.
task_ignore_result = True
result_expires = 3600

# JSON only: whoever can write to the broker must not be able to run code here.
accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"

# Explicit exchanges and keys: a bare Queue would be bound to the default exchange and get everybody's messages. Redis
# cannot put urgent messages first in a queue, so what must not wait behind a burst of creates has a separate one.
task_queues = [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in names.QUEUES]
task_default_queue = names.QUEUE
task_default_exchange = names.QUEUE
task_default_routing_key = names.QUEUE
task_routes = {
    names.CONTINUE: {"queue": names.OUTCOMES},
    names.CONFIRM: {"queue": names.OUTCOMES},
    names.ENQUEUE: {"queue": names.QUEUE},
    names.SEND_WEBHOOKS: {"queue": names.WEBHOOKS},
    "bridge.*": {"queue": names.SWEEPS},
}

broker_transport_options: dict[str, object] = {
    # What a killed worker had in hand comes back after so long: just above the longest that one may be in hand, a
    # create's delay before it is tried again (tasks/intake.py) and the time limit below. Should one come back while it
    # is in hand still, it is done twice, which is harmless.
    "visibility_timeout": 130,
    # Look for messages of killed workers every 10 s instead of about every 100 s.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # Kombu's default of no timeout hangs for ever on a half-open connection.
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 15,
    # A refused send fails at once, and the outbox keeps the outcome; by default it is retried for 6 s, and 50 of them
    # would exceed a task's time limit. The worker's own reconnection is ruled by broker_connection_max_retries.
    "max_retries": 1,
    "interval_start": 0,
    "interval_max": 0.1,
    # With the default names, two applications on one Redis would restore each other's messages.
    "unacked_key": "bridge.unacked",
    "unacked_index_key": "bridge.unacked_index",
    "unacked_mutex_key": "bridge.unacked_mutex",
}
result_backend_transport_options: dict[str, object] = {"socket_timeout": 5, "socket_connect_timeout": 3}
if _service is not None:
    broker_transport_options["master_name"] = result_backend_transport_options["master_name"] = _service.name
redis_socket_timeout = 5
redis_socket_connect_timeout = 3
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # the default gives up for good after 100 tries
# A broker that answers and refuses (read-only, out of memory, a failed save) ends the worker by default.
broker_channel_error_retry = True
worker_consumer = "tasks.consumer:Consumer"  # otherwise each refused try would leave its connections open

# A task counts as done when it is done; all of them are safe to repeat.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
# Creates to be retried later are in the worker's memory meanwhile: at most this many, the rest waits in the broker.
worker_eta_task_limit = 1000
# Tasks finish while the broker restarts, and are acknowledged after it; cancelling them would repeat them.
worker_cancel_long_running_tasks_on_connection_loss = False
task_soft_time_limit = 60
task_time_limit = 90
worker_soft_shutdown_timeout = 10

# Whoever can write to the broker must not be able to stop a worker; for Flower it may be asked (tasks/app.py).
worker_enable_remote_control = _settings.remote_control
# For Flower; sweeps send none (tasks/upkeep.py). Events name tasks and IDs;
# arguments of documents never pass through the bridge's own tasks.
worker_send_task_events = True
task_send_sent_event = False  # a message is only a nudge, and each event costs as much as the message
worker_hijack_root_logger = False
worker_redirect_stdouts = False
timezone = "UTC"

# By a clock that cannot be set, and only while the sweeps that were sent before are taken off their queue: so they need
# no time at which they expire, which would be compared with another machine's clock.
beat_scheduler = "tasks.steady_beat:Steady"
beat_schedule: dict[str, Any] = {
    task.removeprefix("bridge."): {"task": task, "schedule": seconds, "options": {"queue": names.SWEEPS}}
    for task, seconds in {
        **SWEEP_PERIODS,
        # Off unless set: looked at ten times within the age that counts, within a second and a minute.
        **({names.PROMOTE: min(60.0, max(1.0, _aging / 10))} if _aging else {}),
    }.items()
}
