"""The command `jobbridge`.

The CLI imports neither `api` nor `tasks`: it starts them by name, as separate processes.
"""

import sys


def main() -> None:
    """Run the command line. A refusal is one line on standard error; an error of set-up has exit status 2."""
    from bridge.cli.local.checkout import ROOT

    sys.path.insert(0, str(ROOT))  # `models` is a generic name: the one beside this package wins
    from bridge.cli.app import app
    from bridge.cli.errors import refusal_of

    try:
        app()
    except Exception as problem:
        refusal = refusal_of(problem)
        if refusal is None:
            raise
        print(f"jobbridge: {refusal}", file=sys.stderr)
        sys.exit(refusal.status)


__all__ = ["main"]
