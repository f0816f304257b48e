"""Revoke a key: it is no longer accepted, and the jobs that its workers hold become pending again."""

import re
from typing import NamedTuple

from sqlalchemy import Row

from bridge.admission import keys
from bridge.admission.key_makers import administers, name_of
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import NotFound
from bridge.jobs.release import take_from_key
from bridge.jobs.transition import follow
from bridge.runtime import Runtime

_UNKNOWN = "The key was not found: no key that you administer has this prefix."


class Revoked(NamedTuple):
    """The effect of revoking a key."""

    key: Row[tuple[object, ...]]
    by: str
    released: int  # jobs that are pending again
    also: int  # keys that it had made, revoked with it


def revoke(runtime: Runtime, caller: Caller, prefix: str, *, made: bool = False) -> Revoked:
    """Revoke the key with this prefix (`made`: and those it made, and so on). Idempotent. Raises NotFound.

    It takes effect in every API process within a second.
    """
    whose = administers(caller)
    if not re.fullmatch("[A-Za-z0-9_]{1,40}", prefix):
        raise NotFound(_UNKNOWN)
    with runtime.engine.begin() as connection:
        if keys.find_key(connection, prefix, whose) is None:
            raise NotFound(_UNKNOWN)
        also = keys.made_from(connection, prefix, whose) if made else []
        by = name_of(connection, caller)
        also = [one for one in also if keys.revoke_key(connection, one, whose, by=by)]
        keys.revoke_key(connection, prefix, whose, by=by)
        revoked = [key for one in (prefix, *also) if (key := keys.find_key(connection, one, whose)) is not None]
        reach("revoke.before_commit")
    reach("revoke.after_commit")
    released = 0
    for key in revoked:
        for taken in take_from_key(runtime.engine, key.id):
            reach("revoke.after_take")
            follow(runtime, taken, head=True)
            released += len(taken)
    return Revoked(revoked[0], by, released, len(also))
