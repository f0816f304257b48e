"""Which workers there are, what they hold, and which of them are given no jobs."""
