"""The settings: one frozen object, read from the environment and a `.env` file. The only reader of the environment."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.functional_validators import AfterValidator, BeforeValidator, field_validator

from bridge import crash_points
from bridge.key_limits import KeyLimits
from bridge.outgoing.addresses import network
from bridge.outgoing.destination import OFF, Allowed
from bridge.outgoing.objects import SCHEME, entry
from bridge.redis_url import service

PREFIX = "BRIDGE_"


class SettingsError(Exception):
    """A setting is missing or bad; its text is one line that names it and says what to do."""


class Backoff(BaseModel):
    """Delay before retry n (0-based): min(max, base * factor**n), times 1 ± jitter; in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: float = Field(10.0, ge=0, le=86400)
    factor: float = Field(2.0, ge=1, le=100)
    max: float = Field(3600.0, ge=0, le=2592000)
    jitter: float = Field(0.1, ge=0, le=1)


def _pairs(text: str) -> dict[str, str]:
    """Parse `a=1,b=2` into a mapping."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(sep for _, sep, _ in pairs):
        raise ValueError("must look like name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _timeouts(text: str) -> dict[str, str]:
    pairs = {"*": "3600", **_pairs(text)}
    if any(not 1 <= int(seconds) <= 604800 for seconds in pairs.values()):
        raise ValueError("every deadline must be 1 to 604800 seconds")
    return pairs


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off", "1", "0", "true", "false"):
        raise ValueError("must be on or off")
    return text.lower() in ("on", "1", "true")


def _listed(separator: str) -> BeforeValidator:
    def split(text: str) -> tuple[str, ...]:
        return tuple(p.strip() for p in text.split(separator) if p.strip())

    return BeforeValidator(split)


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    """Check a value that is given; `check` raises ValueError."""

    def checked(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(checked)


def _redis(url: str) -> None:
    if not re.match(r"(redis|rediss|unix|sentinel)://", url):
        raise ValueError("must start with redis://, rediss://, unix:// or sentinel://")
    service(url)


def _page(url: str) -> None:
    if not re.fullmatch(r"https?://[^\s\"'<>]+", url):
        raise ValueError("must look like https://flower.example.org")


def _addresses(listed: tuple[str, ...]) -> None:
    for one in listed:
        try:
            ip_network(one, strict=False)
        except ValueError:
            raise ValueError(f"{one!r} is not an IP address or network") from None


def _port(text: str) -> str:
    if text.startswith("tcp://"):
        raise ValueError(
            "looks like a Kubernetes service link, not a port; set enableServiceLinks: false or rename the service"
        )
    return text


def _psycopg2(url: str) -> str:
    """Make both spellings mean psycopg2: SQLAlchemy 2.1 takes `postgresql://` for psycopg 3."""
    scheme, sep, rest = url.partition("://")
    if not sep or scheme not in ("postgresql", "postgres", "postgresql+psycopg2"):
        raise ValueError("must start with postgresql:// or postgresql+psycopg2://")
    return f"postgresql+psycopg2://{rest}"


def _sources(listed: tuple[str, ...]) -> tuple[str, ...]:
    objects = [one for one in listed if one.startswith(SCHEME)]
    for one in objects:
        entry(one)
    if objects and find_spec("obstore") is None:
        raise ValueError("s3:// needs obstore: install jobbridge[s3]")
    for pattern in Allowed.of([one for one in listed if one not in objects]).patterns:
        if pattern.scheme != "https":
            raise ValueError("every entry must begin with https:// or s3://")
    return () if listed == (OFF,) else listed


Switch = Annotated[bool, BeforeValidator(_switch)]
Names = Annotated[tuple[str, ...], _listed(",")]
Networks = Annotated[Names, _checked(lambda listed: [network(one) for one in listed])]
CrashPoints = Annotated[Path | None, _checked(crash_points.check)]
DEADLINES = "audio=3600,video=7200,document=900,image=300,web=600,youtube=3600,*=3600"


class Settings(BaseModel):
    """Every `BRIDGE_…` name, in lower case without the prefix; durations in seconds.

    What is given is text, as in the environment, and is validated; a default is not, unless it says so.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: Annotated[str | None, AfterValidator(_psycopg2)] = None
    redis_url: Annotated[str | None, _checked(_redis)] = None
    broker_url: str | None = None
    data_dir: Path = Path(".bridge")
    host: str = "127.0.0.1"
    port: Annotated[int, BeforeValidator(_port)] = Field(8000, ge=0, le=65535)
    api_processes: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    api_connections: int = Field(16000, ge=64, le=1000000)  # of a process
    trusted_proxies: Annotated[Names, _checked(_addresses)] = ()
    auth: Switch = True
    auth_off_anywhere: Switch = False
    bootstrap_key: str | None = Field(None, min_length=32, max_length=200)
    source_roots: Annotated[tuple[Path, ...], _listed(":")] = ()
    timeout_seconds: Annotated[dict[str, int], BeforeValidator(_timeouts)] = Field(DEADLINES, validate_default=True)
    queue_timeout_seconds: int = Field(86400, ge=1, le=2592000)
    priority_aging_seconds: int | None = Field(None, ge=1, le=2592000)
    ack_seconds: int = Field(60, ge=1, le=3600)
    retry_backoff: Annotated[Backoff, BeforeValidator(_pairs)] = Backoff()
    limits: Annotated[KeyLimits, BeforeValidator(_pairs)] = KeyLimits()
    max_body_bytes: int = Field(16777216, ge=1024, le=268435456)
    store: str | None = Field(None, pattern=r"^(file:/.+|(s3|gs|az)://[^/?#]+(/[^?#]*)?)$")
    store_redirect: Switch = False
    store_object_bytes: int | None = Field(None, ge=8388608, le=2147483647)
    upload_max_bytes: int = Field(17179869184, ge=1, le=1099511627776)
    upload_expiry_seconds: int = Field(86400, ge=60, le=2592000)
    continuation_task: str | None = Field(None, min_length=1)
    continuation_queue: str = Field("celery", min_length=1)
    continuation_inline_bytes: int = Field(262144, ge=0, le=268435456)
    continuation_confirm_seconds: int | None = Field(None, ge=1, le=604800)
    source_allow: Annotated[Names, AfterValidator(_sources)] = ()
    source_networks: Networks = ()
    source_worker_fetch: Switch = False
    webhook_allow: Annotated[Names, _checked(Allowed.of)] = ("https://*",)
    webhook_networks: Networks = ()
    webhook_retry_seconds: int = Field(259200, ge=60, le=2592000)
    remote_control: Switch = False
    flower_url: Annotated[str | None, _checked(_page)] = None
    retention_days: float = Field(30, gt=0, le=36500)
    redis_prefix: str = Field("bridge", pattern=r"^[A-Za-z0-9._:-]{1,50}$")
    docs: Switch = True
    fast_routes: Switch = True
    accel_redirect_prefix: str | None = Field(None, pattern=r"^(/[A-Za-z0-9._~-]{1,50}){1,5}$")
    ui: Switch = True
    session_secret: str | None = Field(None, min_length=32, max_length=200)
    metrics: str = Field("local", pattern=r"^(local|on|off|key)$")
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$")
    log_format: str | None = Field(None, pattern=r"^(console|json)$")
    url: str | None = None
    key: str | None = None
    crash_points: CrashPoints = None  # an instrument of the tests, not a setting of operators: see CONTRIBUTING.md

    @field_validator("store_redirect", "store_object_bytes")
    @classmethod
    def _of_a_bucket(cls, value: int, info: ValidationInfo) -> int:
        if value and str(info.data.get("store") or "file:").startswith("file:"):
            raise ValueError("needs a bucket as BRIDGE_STORE, such as s3://bucket/prefix")
        return value

    def model_post_init(self, context: Any) -> None:
        object.__setattr__(self, "data_dir", self.data_dir.absolute())
        if not self.source_roots:
            object.__setattr__(self, "source_roots", (self.data_dir / "files",))
        if self.store is None:
            object.__setattr__(self, "store", f"file:{self.data_dir / 'uploads'}")
        if self.broker_url is None:
            object.__setattr__(self, "broker_url", self.redis_url)

    def require(self, field: str) -> str:
        """Return the value of a setting without which this process cannot run. Raises SettingsError."""
        value = getattr(self, field)
        if value is None:
            raise SettingsError(f"{PREFIX}{field.upper()} is not set; this command needs it (see docs/operations.md)")
        return str(value)

    def deadline_for(self, content_type: str) -> int:
        """Return the default `timeout_seconds` of a content type."""
        return self.timeout_seconds.get(content_type, self.timeout_seconds["*"])


def known_names() -> frozenset[str]:
    """Return the names that the environment may set."""
    return frozenset(PREFIX + field.upper() for field in Settings.model_fields)


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each `BRIDGE_…` name that is set and that nothing reads, with the nearest known name."""
    lines = []
    for name in sorted(n for n, value in environment.items() if _is_unknown(n) and value != ""):
        near = difflib.get_close_matches(name, known_names(), 1)
        lines.append(f"{name} is not a known setting" + (f"; did you mean {near[0]}?" if near else ""))
    return lines


def without_unknown(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: unknown names are empty, so that it does not warn about them again."""
    return {name: "" if _is_unknown(name) else value for name, value in environment.items()}


def _is_unknown(name: str) -> bool:
    """Return whether nothing reads it. Kubernetes sets BRIDGE_SERVICE_… and BRIDGE_PORT_… for a Service `bridge`."""
    return name.startswith(PREFIX) and name not in known_names() and not re.match(r"BRIDGE_(SERVICE_|PORT_)", name)


def read_environment(dotenv: str | Path = ".env") -> dict[str, str]:
    """Return `.env` (if there is one) overlaid with the environment, both as text."""
    return {**{k: v for k, v in dotenv_values(dotenv).items() if v is not None}, **os.environ}


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process. Raises SettingsError naming the first bad one."""
    source = read_environment() if environment is None else environment
    given = {n[len(PREFIX) :].lower(): v for n, v in source.items() if n in known_names() and v != ""}
    try:
        return Settings(**given)
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_input=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        inner = "".join(f" ({part})" for part in first["loc"][1:])
        raise SettingsError(f"{name}{inner}: {first['msg'].removeprefix('Value error, ')}") from None
