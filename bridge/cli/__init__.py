"""The command `jobbridge`.

The CLI imports neither `api` nor `tasks`: it starts them by name, as processes of their own.
"""

import sys


def main() -> None:
    """Runs the command line. What is refused is one line on standard error; an error of set-up has exit status 2."""
    from bridge.cli.checkout import ROOT, CheckoutError

    sys.path.insert(0, str(ROOT))  # `models` is a generic name: the one beside this package wins
    from sqlalchemy.exc import DBAPIError

    from bridge.cli.app import app
    from bridge.cli.refusal import Refused, refusal_of
    from bridge.embedded.errors import EmbeddedError
    from bridge.settings import SettingsError

    try:
        app()
    except (CheckoutError, EmbeddedError, Refused, SettingsError) as problem:
        reason: Exception = problem
    except DBAPIError as problem:
        refusal = refusal_of(problem)
        if refusal is None:
            raise
        reason = refusal
    print(f"jobbridge: {reason}", file=sys.stderr)
    sys.exit(getattr(reason, "status", 2))


__all__ = ["main"]
