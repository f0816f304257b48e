"""The API as gunicorn loads it, writing more often who asks for jobs: a test that waits for that waits less."""

from bridge.long_poll import pause_watch

pause_watch.WRITE_TICKS = 2
from api.wsgi import app  # noqa: E402  (what is above has to be in place first)

__all__ = ["app"]
