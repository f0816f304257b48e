"""What gunicorn loads in each API process (`api.wsgi:app`)."""

import os
import secrets
import socket
from dataclasses import replace
from functools import partial

from celery import Celery

from api.create_app import create_app
from api.http.counted import Told
from api.http.send_file import SENDS_NICE
from bridge import crash_points, server_requirements
from bridge.background import once
from bridge.db import make_cooperative, make_engine
from bridge.file_pool import FilePool
from bridge.insight.counting import Counting
from bridge.logs import configure_logging
from bridge.mirror.lists import Mirror
from bridge.natural_batches import Batches
from bridge.outbox.nudge import Nudger
from bridge.runtime import Runtime
from bridge.settings import load_settings
from bridge.traces import traces_of

make_cooperative()
settings = load_settings()
configure_logging(settings)
crash_points.arm(settings.crash_points)
sender = Celery("bridge", set_as_current=False)
sender.config_from_object("celeryconfig")
process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
mirror = Mirror(settings.require("redis_url"), settings.redis_prefix, process)
engine = make_engine(settings, pool_size=16, name="bridge-api")
redis_url = settings.require("redis_url")
once(10.0, "see whether the servers are as they should be", partial(server_requirements.tell, engine, redis_url))
nudger, observer, traces = Nudger(sender), Counting(Told()), traces_of("jobbridge-api")
files, sends = FilePool(), FilePool(nice=SENDS_NICE)
runtime = Runtime(settings, engine, mirror, nudger, files, sends, Batches(), observer, traces, nudger.call_back)
# What all requests depend on must not wait for a connection behind slow ones.
reserved = replace(runtime, engine=make_engine(settings, pool_size=4, name="bridge-reserved"))
app = create_app(runtime, reserved)
