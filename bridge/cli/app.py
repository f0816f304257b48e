"""The commands and their options; each does its work in a module of its own."""

from __future__ import annotations

from pathlib import Path

import typer

from bridge.cli.local import checkout, command_lines, database, keys
from bridge.cli.options import EXIT
from bridge.cli.remote import continuations, jobs, queues, workers
from bridge.cli.secret import shown_or_kept
from bridge.version import version

app = typer.Typer(
    name="jobbridge",
    help="A bridge between a Celery ingestion pipeline and remote workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(database.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(jobs.app, name="jobs")
app.command(epilog=EXIT)(queues.queues)
app.add_typer(workers.app, name="workers")
app.add_typer(continuations.app, name="continuations")


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jobbridge {version()}")
        raise typer.Exit


@app.callback()
def jobbridge(
    _: bool = typer.Option(False, "--version", callback=_say_version, is_eager=True, help="Show the version and exit."),
) -> None:
    """A bridge between a Celery ingestion pipeline and remote workers."""


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _changes(port: int | None, data_dir: Path | None) -> dict[str, str]:
    given = {"BRIDGE_PORT": port, "BRIDGE_DATA_DIR": data_dir.absolute() if data_dir else None}
    return {name: str(value) for name, value in given.items() if value is not None}


@app.command()
def up(
    flower: bool = typer.Option(False, "--flower", help="Also Flower, on 127.0.0.1:5555."),
    worker: bool = typer.Option(False, "--worker", help="Also a worker with the reference handlers."),
    port: int | None = typer.Option(None, min=1, max=65535, help="The API's port, instead of BRIDGE_PORT."),
    data_dir: Path | None = typer.Option(None, help="Instead of BRIDGE_DATA_DIR."),
) -> None:
    """The whole bridge in one terminal; Ctrl-C stops it, the next `up` finds the same data."""
    from bridge.cli.local.up import run

    raise typer.Exit(run(_changes(port, data_dir), flower=flower, worker=worker))


@app.command()
def demo(
    keep: Path | None = typer.Option(None, help="Keep data and logs in this directory instead of a temporary one."),
) -> None:
    """Sends real sample files through the whole bridge and shows each job's way."""
    from bridge.cli.local.demo import run

    raise typer.Exit(run(keep))


@app.command()
def api() -> None:
    """The HTTP API alone (gunicorn)."""
    settings, environment = checkout.settings_and_environment()
    settings.require("database_url")
    database.refuse_unfit(settings.database_url, settings.require("redis_url"))
    checkout.execute(command_lines.api(), environment)


@app.command(context_settings=_PASS_ON)
def celery(context: typer.Context) -> None:
    """The bridge's Celery worker alone; further options go to `celery worker`."""
    settings, environment = checkout.settings_and_environment()
    settings.require("database_url")
    settings.require("broker_url")
    database.refuse_unfit(settings.database_url, settings.redis_url)
    checkout.execute(command_lines.celery_worker(context.args), command_lines.celery_environment(environment))


@app.command(context_settings=_PASS_ON)
def beat(context: typer.Context) -> None:
    """The bridge's beat alone, once in an installation; further options go to `celery beat`."""
    settings, environment = checkout.settings_and_environment()
    settings.require("broker_url")
    checkout.execute(command_lines.beat(settings, context.args), command_lines.celery_environment(environment))


@app.command(context_settings=_PASS_ON)
def flower(
    context: typer.Context,
    address: str = typer.Option("127.0.0.1", help="Beyond loopback FLOWER_BASIC_AUTH=user:password is required."),
    port: int = typer.Option(5555, min=1, max=65535),
) -> None:
    """Flower alone, read-only and behind a password; further options go to Flower."""
    settings, environment = checkout.settings_and_environment()
    settings.require("broker_url")
    environment, made = command_lines.flower_environment(environment, address)
    if made:
        shown = shown_or_kept(made, settings.data_dir, "flower-login")
        typer.echo(f"Flower on http://{address}:{port}, log in as {shown}", err=True)
    checkout.execute(command_lines.flower(address, port, context.args), environment)
