"""The rules of the house (docs/architecture.md), kept by looking at the code itself."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from api.create_app import create_app
from api.http import problems
from bridge import errors, names
from bridge.cli.local.checkout import ROOT

ROOMS = ("api", "bridge", "models", "tasks")
#: Generic names, that would fit anything and so name nothing.
BANNED = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "service", "services", "misc"}
#: Who may ask without a key: probes, Prometheus, and whoever reads the documentation.
PUBLIC = {
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs/",
    "/docs/<path:path>",
    "/docs/dist/<path:path>",
    "/",
    "/ui/login",
    "/ui/static/<name>",
}


def modules(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py")) if "versions" not in path.parts]
    assert found
    return found


def trees(*rooms: str) -> list[tuple[str, ast.Module]]:
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in modules(*rooms)]


def test_imports_go_one_way():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_has_over_300_lines_and_the_median_is_about_120():
    """Tests, benches and the worker too. Only a migration may be longer: it is never changed once it is released."""
    found = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    paths = [ROOT / name for name in found.stdout.split("\n") if name and "/versions/" not in name]
    rooms = modules(*ROOMS)
    sizes = {path: len(path.read_text().splitlines()) for path in {*paths, *rooms} if path.exists()}
    assert [f"{path}: {size}" for path, size in sizes.items() if size > 300] == []
    assert statistics.median(sizes[path] for path in rooms if sizes[path] > 5) <= 130


def test_every_module_is_named_after_what_is_in_it_and_says_it():
    for path in modules(*ROOMS):
        words = set(re.split(r"[_./]", str(path.relative_to(ROOT).with_suffix(""))))
        assert not words & BANNED, path
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_view_and_no_task_catches_everything():
    for name, tree in trees("api", "tasks"):
        # The server around the views: a connection's end, a process' start; what Flask's error handlers then answer.
        if name in ("api/gunicorn_worker.py", "api/fast_routes.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "everything"
                assert not {"everything", "Exception", "BaseException"} & set(re.findall(r"\w+", caught)), (
                    f"{name}:{node.lineno} catches {caught}"
                )


#: What runs code or starts a process, reads objects out of bytes, or opens a connection to an address.
DANGEROUS_NAMES = {"eval", "exec", "compile", "__import__"}
DANGEROUS_MODULES = {"subprocess", "pickle", "marshal", "shelve", "yaml", "xml", "lxml", "urllib", "http", "requests",
                     "urllib3", "httpx", "aiohttp"}  # fmt: skip
HARMLESS = {"http.HTTPStatus", "urllib.parse"}
#: The places from which an address is asked that somebody else has named, and only those (docs/security.md).
ASKS_GUARDED = ([f"bridge/outgoing/{name}.py" for name in ("connect", "fetch", "post")], {"urllib3", "http"})
#: The operators' side: it starts the processes and asks the API, and nothing that a client sends comes there.
OPERATORS = ("bridge/cli/", "bridge/embedded/", "bridge/__main__.py")


def test_what_serves_requests_runs_no_code_no_process_and_asks_nobody():
    found = []
    for path, tree in trees(*ROOMS):
        if path.startswith(OPERATORS):
            continue
        for node in ast.walk(tree):
            names_ = []
            if isinstance(node, ast.Import):
                names_ = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names_ = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DANGEROUS_NAMES:
                found.append((path, node.func.id))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                found += [(path, node.attr)] if re.match(r"system|popen|exec|spawn|fork", node.attr) else []
            for name in names_:
                harmless = any(name == one or name.startswith(f"{one}.") for one in HARMLESS)
                room = name.split(".")[0]
                guarded = path in ASKS_GUARDED[0] and room in ASKS_GUARDED[1]
                if room in DANGEROUS_MODULES and not harmless and not guarded:
                    found.append((path, name))
    assert found == []


def test_the_core_knows_no_http_and_every_refusal_of_it_has_a_status():
    assert not {"status", "headers"} & vars(errors.BridgeError).keys()
    assert errors.Paused in _made_from(errors.BridgeError)
    for kind in _made_from(errors.BridgeError):
        assert not {"status", "headers"} & vars(kind).keys(), kind
        assert set(kind.__mro__) & problems.STATUSES.keys(), f"{kind} has no HTTP status in api/http/problems.py"
    assert not re.findall("HTTP|[Hh]eader|Retry-After|WWW", (ROOT / "bridge" / "errors.py").read_text())
    for name, tree in trees("bridge"):
        if name.startswith(OPERATORS):  # the command line is a client
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                assert node.attr not in ("status", "headers"), f"{name}:{node.lineno}"
            assert not (isinstance(node, ast.ImportFrom) and node.module == "http"), f"{name}:{node.lineno}"


def _made_from(kind: type[Any]) -> list[type[Any]]:
    return [found for one in kind.__subclasses__() for found in (one, *_made_from(one))]


def test_only_the_settings_read_the_environment():
    for name, tree in trees(*ROOMS):
        written = [ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)
                   and isinstance(node.ctx, ast.Store)]  # fmt: skip
        used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        reads = [use for use in used if use in ("os.environ", "os.getenv")]
        # gunicorn's configuration tells prometheus_client where its processes meet: that is written, not read.
        assert name == "bridge/settings.py" or len(reads) == written.count("os.environ"), (
            f"{name} reads the environment"
        )


def test_importing_a_room_connects_to_nothing():
    """Everything but the composition roots can be imported without PostgreSQL, Redis or a setting."""
    roots = {"api.wsgi", "api.gunicorn_conf", "bridge.__main__", "models.migrations.env"}
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in modules(*ROOMS)]
    wanted = [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]
    script = (
        "import importlib, socket\n"
        "def refuse(*_): raise AssertionError('a connection at import time')\n"
        "socket.socket.connect = refuse\n"
        f"for name in {[name for name in wanted if name not in roots]!r}: importlib.import_module(name)\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_route_asks_for_a_scope_and_documents_its_errors(runtime):
    app: Any = create_app(runtime, runtime)
    paths = app.extensions["flask-smorest"]["apis"][""]["ext_obj"].spec.to_dict()["paths"]
    for rule in app.url_map.iter_rules():
        if rule.rule in PUBLIC:
            continue
        view = app.view_functions[rule.endpoint]
        if rule.endpoint.startswith("ui."):  # pages are for people: they are in no document
            assert getattr(view, "scopes", ()), f"{rule.rule} has no scope"
            assert rule.methods - {"HEAD", "OPTIONS"} in ({"GET"}, {"POST"}), rule.rule
            continue
        documented = paths[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)]
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            of_method = getattr(getattr(view, "view_class", None), method.lower(), view)
            assert getattr(of_method, "scopes", ()), f"{method} {rule.rule} has no scope"
            responses = documented[method.lower()]["responses"]
            assert {"401", "403", "422", "503"} <= set(map(str, responses)), f"{method} {rule.rule}"
            if method in ("POST", "PUT") and "requestBody" in documented[method.lower()]:
                assert {"400", "413", "415"} <= set(map(str, responses)), f"{method} {rule.rule}"


def test_every_task_has_a_name_of_ours_and_goes_to_a_queue_that_is_consumed():
    from tasks.app import app

    app.loader.import_default_modules()
    app.finalize()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    strings = {value for name, value in vars(names).items() if name.isupper() and str(value).startswith("bridge.")}
    strings -= set(names.QUEUES)
    assert ours == strings
    consumed = {queue.name for queue in app.conf.task_queues}
    assert consumed == {"bridge", "bridge.outcomes", "bridge.sweeps", "bridge.webhooks"} == set(names.QUEUES)
    for name in ours:
        assert app.amqp.router.route({}, name)["queue"].name in consumed, name


def test_every_task_is_named_in_its_decorator():
    found = 0
    for name, tree in trees("tasks"):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(called).endswith((".task", "shared_task")):
                    found += 1
                    assert isinstance(decorator, ast.Call), f"{name}:{node.lineno}"
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
                    assert given.get("name", "").startswith("names."), f"{name}:{node.lineno}: {node.name} has no name"
    assert found


def test_beat_runs_only_tasks_that_exist_on_a_queue_that_holds_nothing_else():
    import celeryconfig
    from tasks.app import app

    app.loader.import_default_modules()
    for entry in celeryconfig.beat_schedule.values():
        assert entry["task"] in app.tasks
        assert entry["options"] == {"queue": names.SWEEPS}


def test_no_test_sleeps_or_mocks():
    for path in sorted([*(ROOT / "tests").rglob("test_*.py"), ROOT / "tests" / "conftest.py"]):
        for node in ast.walk(ast.parse(path.read_text())):
            named = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            assert named not in ("time.sleep", "sleep"), f"{path.name}:{getattr(node, 'lineno', 0)} sleeps"
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "mock" not in ast.unparse(node), f"{path.name}:{node.lineno} mocks"
