"""`python -m bridge_worker` is `bridge-worker`."""

import sys

from bridge_worker.cli import main

sys.exit(main())
