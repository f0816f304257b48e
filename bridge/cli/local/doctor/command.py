"""The command `jobbridge doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from bridge.cli.console import console, pairs, print_json, text
from bridge.cli.local import beside_up
from bridge.settings import SettingsError, read_environment


def doctor(json: Annotated[bool, typer.Option("--json", help="Print as JSON, for monitoring.")] = False) -> None:
    """Say what is wrong here, and what to do about it.

    Checks PostgreSQL, Redis, Celery, beat, webhooks, files, the store and settings from this machine, and changes
    nothing. Beside `jobbridge up` it needs no settings. Exit status: 0 nothing is wrong; 1 warnings; 2 errors.
    """
    from bridge.cli.local.doctor.examine import Report, examine
    from bridge.cli.local.doctor.finding import error

    try:
        settings, _ = beside_up.found()
        report = examine(settings, read_environment())
    except SettingsError as bad:
        do = "Correct it: nothing starts with it, and nothing else was looked at (docs/operations.md)."
        report = Report([error("settings", f"{bad}.", do)], {})
    if json:
        findings = [one._asdict() for one in report.findings]
        print_json({"status": report.status, "findings": findings, "facts": report.facts})
        raise typer.Exit(report.status)
    paper = console()
    paper.print(pairs((name, text(value)) for name, value in report.facts.items()))
    for one in report.findings:
        style = "bold red" if one.level == "error" else "bold yellow"
        paper.print()
        paper.print(Text.assemble((f"{one.level} ", style), (one.check, "bold"), "  ", text(one.what)))
        paper.print(Text.assemble("  → ", text(one.do)))
    if not report.findings:
        paper.print(Text("Nothing is wrong.", style="green"))
    raise typer.Exit(report.status)
