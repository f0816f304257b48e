"""The whole bridge: crash points, network faults, the model, the checker of histories."""
