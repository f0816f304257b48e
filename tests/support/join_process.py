"""A process that joins uploads until none is left, as a thread of Celery's does where the store is a bucket."""

from bridge import crash_points
from bridge.blobs.join import join_next
from bridge.db import make_engine
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from bridge.settings import load_settings

if __name__ == "__main__":
    settings = load_settings()
    crash_points.arm(settings.crash_points)
    mirror = Mirror(settings.require("redis_url"), settings.redis_prefix, "join")
    runtime = Runtime(settings, make_engine(settings), mirror, lambda job_ids: None)
    while join_next(runtime) is not None:
        pass
