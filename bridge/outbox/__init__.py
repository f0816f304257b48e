"""How outcomes reach the pipeline: recorded with the change of state, sent at least once, confirmed."""
