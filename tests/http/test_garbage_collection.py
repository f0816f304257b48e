"""Garbage that only a full collection finds goes where memory has grown, and what is alive is not looked at in vain."""

import json
import subprocess
import sys

# A process of its own: what it sets is for all of a process.
SCRIPT = """
import gc, json
from api.garbage_collection import FullCollections

collections = FullCollections()
found = {"begun": collections.begin(), "idle": collections.look()}

class Holder:
    alive = 0

    def __init__(self):
        self.itself, self.bytes = self, bytearray(2**20)
        Holder.alive += 1

    def __del__(self):
        Holder.alive -= 1

held = [Holder() for _ in range(100)]
gc.collect(0), gc.collect(1)  # old from now on
kept = held[:10]
held.clear()
for _ in range(3):
    gc.collect(1)
found["kept by the younger ones"] = Holder.alive
found["grown"] = collections.look()
found["left"] = Holder.alive
found["again"] = collections.look()
found["full by themselves"] = gc.get_threshold()[2] < 1000
print(json.dumps(found))
"""


def test_a_process_that_has_grown_is_looked_through_and_one_that_has_not_is_let_alone():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "begun": True, "idle": False, "kept by the younger ones": 100, "grown": True, "left": 10, "again": False,
        "full by themselves": False,
    }  # fmt: skip
