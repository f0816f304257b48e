"""The remote worker of the bridge. A handler imports what it needs from here: Job, Result, PermanentError."""

from bridge_worker.job import Job, JobCancelled, PermanentError, Result

__all__ = ["Job", "JobCancelled", "PermanentError", "Result", "__version__"]
__version__ = "0.2.0"
