"""The commands and their options; each does its work in a separate module."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.core import TyperArgument

from bridge.cli import keys
from bridge.cli.local import beside_up, checkout, command_lines, database
from bridge.cli.local.doctor.command import doctor
from bridge.cli.local.used_ports import refuse_used_port
from bridge.cli.options import EXIT
from bridge.cli.remote import continuations, jobs, queues, top, webhooks, workers
from bridge.cli.secret import shown_or_kept
from bridge.settings import read_environment, unknown_names
from bridge.version import version

# Otherwise it writes the Python type beside an argument's name: `FILE <list[Path]>`.
TyperArgument.display_type_rich = lambda self, ctx: None  # type: ignore[method-assign]

app = typer.Typer(
    name="jobbridge",
    help="A bridge between a Celery ingestion pipeline and remote workers.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its boxes take a third of 80 columns, and it writes `--wait <bool>` for a flag
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(database.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(jobs.app, name="jobs")
app.command(epilog=EXIT)(queues.queues)
app.command(epilog=EXIT)(top.top)
app.command()(doctor)
app.add_typer(workers.app, name="workers")
app.add_typer(continuations.app, name="continuations")
app.add_typer(webhooks.app, name="webhooks")


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jobbridge {version()}")
        raise typer.Exit


@app.callback()
def jobbridge(
    _: bool = typer.Option(False, "--version", callback=_say_version, is_eager=True, help="Show the version and exit."),
) -> None:
    """Warn about settings that nothing reads, before any command."""
    for line in unknown_names(read_environment()):
        typer.echo(f"warning: {line}", err=True)


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _changes(port: int | None, data_dir: Path | None) -> dict[str, str]:
    given = {"BRIDGE_PORT": port, "BRIDGE_DATA_DIR": data_dir.absolute() if data_dir else None}
    return {name: str(value) for name, value in given.items() if value is not None}


@app.command()
def up(
    flower: bool = typer.Option(False, "--flower", help="Also Flower, on 127.0.0.1 alone."),
    flower_port: int = typer.Option(5555, metavar="PORT", min=1, max=65535, help="Flower's port."),
    worker: bool = typer.Option(False, "--worker", help="Also a worker with the reference handlers."),
    port: int | None = typer.Option(None, metavar="PORT", min=1, max=65535, help="The API's, instead of BRIDGE_PORT."),
    data_dir: Path | None = typer.Option(None, metavar="DIRECTORY", help="Instead of BRIDGE_DATA_DIR."),
) -> None:
    """Run the whole bridge in this terminal until Ctrl-C.

    The next `up` finds the same data.
    """
    from bridge.cli.local.up import run

    raise typer.Exit(run(_changes(port, data_dir), flower=flower_port if flower else None, worker=worker))


@app.command()
def demo(
    keep: Path | None = typer.Option(
        None, metavar="DIRECTORY", help="Keep data and logs here instead of in a temporary directory."
    ),
) -> None:
    """Send real files through the whole bridge and show how."""
    from bridge.cli.local.demo import run

    raise typer.Exit(run(keep))


@app.command()
def api() -> None:
    """Run the HTTP API alone (gunicorn)."""
    settings, environment = beside_up.settings_and_environment("database_url", "redis_url")
    database.refuse_unfit(settings.database_url, settings.redis_url)
    checkout.execute(command_lines.api(), environment)


@app.command(context_settings=_PASS_ON)
def celery(context: typer.Context) -> None:
    """Run the bridge's Celery worker alone.

    Further options go to `celery worker`.
    """
    settings, environment = beside_up.settings_and_environment("database_url", "broker_url")
    database.refuse_unfit(settings.database_url, settings.redis_url)
    checkout.execute(command_lines.celery_worker(context.args), command_lines.celery_environment(environment))


@app.command(context_settings=_PASS_ON)
def beat(context: typer.Context) -> None:
    """Run the bridge's beat alone, once in an installation.

    Further options go to `celery beat`.
    """
    settings, environment = beside_up.settings_and_environment("broker_url")
    checkout.execute(command_lines.beat(settings, context.args), command_lines.celery_environment(environment))


@app.command(context_settings=_PASS_ON)
def flower(
    context: typer.Context,
    address: str = typer.Option(
        "127.0.0.1", metavar="IP", help="Beyond loopback FLOWER_BASIC_AUTH=user:password is required."
    ),
    port: int = typer.Option(5555, metavar="PORT", min=1, max=65535, help="The port to listen on."),
) -> None:
    """Run Flower alone, read-only and behind a password.

    Further options go to Flower.
    """
    settings, environment = beside_up.settings_and_environment("broker_url")
    environment, made = command_lines.flower_environment(environment, address)
    refuse_used_port(address, port, "--port", "choose another")
    if made:
        shown = shown_or_kept(made, settings.data_dir, "flower-login")
        typer.echo(f"Flower on http://{address}:{port}, log in as {shown}", err=True)
    checkout.execute(command_lines.flower(address, port, context.args), environment)
