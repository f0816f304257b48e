"""Many files at once on a scripted bridge: it hands out what was not ended, and keeps how each ended."""

from __future__ import annotations

import threading
import time
from typing import Any

from scripted_bridge import Call, Say, ScriptedBridge, claim, jobs


class Crowd:
    """The jobs of a test, by ID; `results` has the body of each result, `releases` those given back."""

    def __init__(self, bridge: ScriptedBridge, files: dict[str, bytes], **fields: Any) -> None:
        self._bridge, self._files, self._fields = bridge, files, fields
        self._lock = threading.Lock()
        self._waiting = list(files)
        self.results: dict[str, dict[str, Any]] = {}
        self.releases: list[str] = []
        self.all_ended = threading.Event()
        bridge.always("poll", self._poll)
        bridge.always("download", lambda call: Say(data=self._files[call.job_id]))
        bridge.always("release", self._release)
        bridge.always("result", self._result)

    def wait(self, seconds: float) -> None:
        """Wait until each job has a result."""
        assert self.all_ended.wait(seconds), f"without a result: {sorted(set(self._files) - set(self.results))}"

    def _poll(self, call: Call) -> Say:
        most = int(call.query["max_jobs"])
        with self._lock:
            given, self._waiting = self._waiting[:most], self._waiting[most:]
        if not given and call.query["wait"] != "0":
            self._bridge.closing.wait(0.2)
        return jobs(*(claim(job_id, **self._fields) for job_id in given))

    def _release(self, call: Call) -> Say:
        with self._lock:
            self.releases.append(call.job_id)
            self._waiting.append(call.job_id)
        return Say(body={"status": "pending"})

    def _result(self, call: Call) -> Say:
        with self._lock:
            assert call.job_id not in self.results
            self.results[call.job_id] = {**call.body, "at": time.monotonic()}
            if len(self.results) == len(self._files):
                self.all_ended.set()
        return Say(body={"status": "completed" if call.body["success"] else "pending"})
