"""Delete keys of the mirror that are not what they should be: whoever reaches Redis can write anything there."""

import re
from itertools import islice

import redis
import structlog

log = structlog.get_logger("bridge.mirror.wrong_type_keys")

AT_ONCE = 1000


def discard_bad_keys(client: redis.Redis, prefix: str) -> int:
    """Delete them; how many. A pending list that was lost so takes the epoch along: the mirror is rebuilt then.

    Raises redis.RedisError.
    """
    expected = {f"{prefix}:rebuilt": "string", f"{prefix}:suspects": "set"}
    bad = [key for key, kind in expected.items() if client.type(key) not in (kind, "none")]
    queues = client.scan_iter(f"{prefix}:{{*", count=AT_ONCE)
    a_list = re.compile(re.escape(prefix) + r":\{[^}]*\}:(pending|claimed):")
    while keys := list(islice(queues, AT_ONCE)):
        ours = [key for key in keys if a_list.match(key)]
        with client.pipeline(transaction=False) as pipe:
            for key in ours:
                pipe.type(key)
            kinds = pipe.execute()
        bad += [key for key, kind in zip(ours, kinds, strict=True) if kind not in ("list", "none")]
    if bad:
        log.warning("mirror_keys_of_wrong_type_deleted", keys=bad[:10], count=len(bad))
        client.delete(*bad)
        if any(":pending:" in key for key in bad):
            client.delete(f"{prefix}:epoch")
    return len(bad)
