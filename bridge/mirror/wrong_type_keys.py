"""Delete keys of the mirror that are not what they should be: whoever reaches Redis can write anything there."""

from itertools import islice

import redis
import structlog

from bridge.redis_keys import RedisKeys

log = structlog.get_logger("bridge.mirror.wrong_type_keys")

AT_ONCE = 1000


def discard_bad_keys(client: redis.Redis, ours: RedisKeys) -> int:
    """Delete them; return how many. Losing a pending list this way deletes the epoch too: the mirror is then rebuilt.

    Raises redis.RedisError.
    """
    expected = {ours.rebuilt: "string", ours.suspects: "set"}
    bad = [key for key, kind in expected.items() if client.type(key) not in (kind, "none")]
    queues = client.scan_iter(ours.any_queue, count=AT_ONCE)
    while keys := list(islice(queues, AT_ONCE)):
        lists = [key for key in keys if ours.queue_list(key)]
        with client.pipeline(transaction=False) as pipe:
            for key in lists:
                pipe.type(key)
            kinds = pipe.execute()
        bad += [key for key, kind in zip(lists, kinds, strict=True) if kind not in ("list", "none")]
    if bad:
        log.warning("mirror_keys_of_wrong_type_deleted", keys=bad[:10], count=len(bad))
        client.delete(*bad)
        if any((found := ours.queue_list(key)) and found.kind == "pending" for key in bad):
            client.delete(ours.epoch)
    return len(bad)
