"""Everything is killed, frozen, cut and refused while jobs flow; then nothing may be lost, doubled or stuck.

`clients` call the bridge and record every call (`history`); a `nemesis` runs the `faults` of a schedule that is a
function of the seed against a `system`; then all is healed and drained (`run`), what PostgreSQL, Redis, the pipeline
and the metrics hold is read (`end_state`), and the `checker` holds both against each invariant.
"""
