"""What runs by itself: the sweeps that beat sends, and how often.

Beside them each API process runs the loops that `bridge.background.every` is given: the dispatcher's look, hang-ups,
pauses, which workers and queues ask (bridge/long_poll/pause_watch.py), limits, keys, collection of garbage, and the
clocks where no sweep comes (bridge/jobs/expire_without_beat.py);
its gauges (api/gunicorn_conf.py); and a thread that writes what was counted (bridge/insight/totals.py).
"""

from bridge import names

# Seconds. The work of each is in tasks/upkeep.py, tasks/continuation.py or tasks/webhooks.py.
SWEEP_PERIODS = {
    names.RELEASE_DUE: 1.0,  # jobs whose time has come
    names.EXPIRE: 5.0,  # clocks that ran out
    names.CONTINUE: 10.0,  # outcomes that were not handed over
    names.REPEAT: 10.0,  # outcomes that nobody confirmed
    names.UNSERVED: 10.0,  # jobs that nobody asks for
    names.BATCHES: 10.0,  # batches that have ended
    names.CALL_BACK: 5.0,  # webhooks that are due
    names.JOIN: 5.0,  # uploads of several objects, where the store is to give them
    names.RECONCILE: 15.0,  # what the mirror lacks, all of it after a loss of Redis
    names.WATCH: 2.0,  # workers that are paused, or let go
    names.FOLD: 5.0,  # counts of jobs
    names.MEDIANS: 10.0,  # durations for forecasts
    names.HISTORY: 15.0,  # what the dashboard draws
    names.COLLECT: 300.0,  # uploads and files that nothing names
    names.PURGE: 3600.0,  # finished jobs that are old
    names.CHECK: 21600.0,  # counts against the whole table
}
# Beside them `celeryconfig.py` sends names.PROMOTE where BRIDGE_PRIORITY_AGING_SECONDS is set, and sets its period.
