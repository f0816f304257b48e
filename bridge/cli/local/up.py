"""`jobbridge up`: the whole bridge in one terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bridge import embedded
from bridge.cli.local import checkout, command_lines
from bridge.cli.local.stack import Stack, kept_worker_key
from bridge.cli.local.supervisor import ChildEnded, Signals, ending_signals
from bridge.cli.local.used_ports import refuse_used_port
from bridge.cli.secret import shown_or_kept
from bridge.private_files import write_private

#: The reference handlers of worker/, by content type.
HANDLERS = {
    "document": "bridge_worker.handlers.documents:handle",
    "web": "bridge_worker.handlers.web:handle",
    "audio": "bridge_worker.handlers.speech:handle",
    "video": "bridge_worker.handlers.video:handle",
}


def run(changes: dict[str, str], *, flower: int | None, worker: bool) -> int:
    """Run the stack until a signal arrives (status 0) or one of its processes ends for good (status 1).

    `flower` is the port of Flower; None: no Flower.
    """
    console = Console(highlight=False, soft_wrap=True)
    if flower is not None:
        refuse_used_port("127.0.0.1", flower, "--flower", "choose another with --flower-port")
        linked = checkout.settings_and_environment()[0].flower_url or f"http://127.0.0.1:{flower}"
        changes = {**changes, "BRIDGE_REMOTE_CONTROL": "on", "BRIDGE_FLOWER_URL": linked}
    with ending_signals() as signals:
        console.print("Starting PostgreSQL and Redis …", style="dim")
        stack = Stack(changes)
        try:
            return _run(stack, console, signals, flower=flower, worker=worker)
        except ChildEnded as ended:
            Console(stderr=True, soft_wrap=True).print(f"[red]stopped[/] {ended}", highlight=False)
            return 1
        finally:
            console.print("Stopping …", style="dim")
            stack.stop()
            console.print("Stopped. The data are kept." if stack.servers else "Stopped.", style="dim")


def _run(stack: Stack, console: Console, signals: Signals, *, flower: int | None, worker: bool) -> int:
    if stack.settings.data_dir.stat().st_mode & 0o007:
        _warn(f"everybody may enter {stack.settings.data_dir}, which holds files and results: chmod 700 it")
    for line in stack.migrate():
        _warn(line)
    admin = stack.make_key("admin", ["admin"], only_first=True)
    stack.start_processes()
    login = None if flower is None else _start_flower(stack, flower)
    if not stack.await_api(signals):
        return 0
    if worker:
        place = stack.settings.data_dir / "secrets" / "local-worker-key"
        stack.start_remote_worker("local-worker", HANDLERS, kept_worker_key(stack, place))
    _announce(stack, console, admin, _noted_broker(stack))
    if flower is not None:
        console.print(f"  Flower   http://127.0.0.1:{flower}   {f'log in as {login}' if login else ''}".rstrip())
    console.print("[bold green]The bridge is up.[/] Ctrl-C stops it.")
    while not signals.wait(0.5):
        for sentence in stack.keep_up():
            _warn(sentence)
    return 0


def _warn(line: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[yellow]warning[/] {line}", highlight=False)


def _start_flower(stack: Stack, port: int) -> str | None:
    """Start Flower; return what to log in with, or the file that holds it; None if the login was configured."""
    environment, made = command_lines.flower_environment(stack.environment, "127.0.0.1")
    stack.family.start("flower", command_lines.flower("127.0.0.1", port, []), environment)
    return shown_or_kept(made, stack.settings.data_dir, "flower-login") if made else None


def _noted_broker(stack: Stack) -> Path | None:
    """Write the embedded Redis' address, with its password, to a private file: a pipeline on this machine needs it."""
    if stack.servers is None or stack.servers.redis is None:
        return None
    place = stack.settings.data_dir / "secrets" / embedded.BROKER_URL
    return write_private(place, stack.servers.redis_url + "\n")


def _announce(stack: Stack, console: Console, admin: str | None, broker: Path | None) -> None:
    settings = stack.settings
    if settings.ui:
        console.print(f"  [bold]Open     {stack.url}/ui/[/]   the dashboard; sign in with a key")
    console.print(f"  API      {stack.url}   docs: {stack.url}/docs")
    console.print(f"  Redis    {f'embedded; for a Celery pipeline: {broker}' if broker else 'BRIDGE_REDIS_URL'}")
    console.print(f"  Postgres {'embedded' if stack.servers and stack.servers.postgres else 'BRIDGE_DATABASE_URL'}")
    console.print(f"  Files    {':'.join(map(str, settings.source_roots))}")
    console.print(f"  Logs     {Path(settings.data_dir) / 'logs'}")
    if admin:
        shown = shown_or_kept(admin, settings.data_dir, "admin-key")
        once = "shown only now; " if shown == admin else ""
        console.print(f"  [bold]Admin key[/] {shown}   ({once}more: jobbridge keys create)")
    elif not settings.auth:
        console.print("  Keys are off (BRIDGE_AUTH=off)")
