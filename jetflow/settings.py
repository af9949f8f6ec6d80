"""The settings that are not in code: one table, and one order in which they are looked for.

An argument counts first, then a variable of the environment, then ``jetflow.toml`` or ``[tool.jetflow]`` of
``pyproject.toml`` in the working directory or the nearest one above it that has either, then the default. Secrets are
never read from those files, which are under version control.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast

from jetflow.errors import InvalidSetting

Kind: TypeAlias = type[str] | type[int] | type[float] | type[bool]

ARGUMENT: Final = "argument"
DEFAULT: Final = "default"

FILE: Final = "jetflow.toml"
PROJECT: Final = "pyproject.toml"


class Setting(NamedTuple):
    """One setting: its name in code, files and options, the variable of the environment, and what it is for."""

    name: str
    kind: Kind
    variable: str
    about: str
    default: object = None
    secret: bool = False


class Found(NamedTuple):
    """The value of a setting, and where it is from: `ARGUMENT`, a variable, a file, or `DEFAULT`."""

    value: Any
    origin: str


SETTINGS: Final = (
    Setting("server", str, "NATS_URL", "URL of the NATS server, or several with commas"),
    Setting("context", str, "NATS_CONTEXT", "a context of the `nats` command, by name or file"),
    Setting("namespace", str, "JETFLOW_NAMESPACE", "the jetflow namespace", "default"),
    Setting("user", str, "NATS_USER", "who connects, with a password"),
    Setting("password", str, "NATS_PASSWORD", "that user's password", secret=True),
    Setting("token", str, "NATS_TOKEN", "a token instead of a user", secret=True),
    Setting("creds", str, "NATS_CREDS", "a credentials file"),
    Setting("nkey", str, "NATS_NKEY", "a file that holds a user's NKey seed"),
    Setting("tls_ca", str, "NATS_CA", "a file of the authorities that are trusted"),
    Setting("tls_cert", str, "NATS_CERT", "a file with the client's own certificate"),
    Setting("tls_key", str, "NATS_KEY", "the file of that certificate's key"),
    Setting("tls_first", bool, "JETFLOW_TLS_FIRST", "begin with TLS, for a server with handshake_first", False),
    Setting("domain", str, "JETFLOW_DOMAIN", "a JetStream domain"),
    Setting("inbox_prefix", str, "JETFLOW_INBOX_PREFIX", "a subject below which answers go, else _INBOX"),
    Setting("processes", int, "JETFLOW_PROCESSES", "worker processes of `jetflow worker`", 1),
    Setting("slots", int, "JETFLOW_SLOTS", "step bodies that run at once in a process", 100),
    Setting("ack_wait", float, "JETFLOW_ACK_WAIT", "seconds of silence after which another worker gets a task", 5.0),
    Setting("park_after", float, "JETFLOW_PARK_AFTER", "seconds that a step waits for children in memory", 60.0),
    Setting("max_waiting", int, "JETFLOW_MAX_WAITING", "steps that wait for children in memory at once", 1000),
    Setting("keep", float, "JETFLOW_KEEP", "seconds that a finished root run is kept, with its tree", 7 * 24 * 3600.0),
    Setting("keep_failed", float, "JETFLOW_KEEP_FAILED", "the same for root runs that have not succeeded, else keep"),
    Setting("keep_runs", int, "JETFLOW_KEEP_RUNS", "finished root runs that are kept at most", 1_000_000),
    Setting("grace", float, "JETFLOW_GRACE", "seconds that running steps may go on when a worker ends", 30.0),
    Setting("step_processes", int, "JETFLOW_STEP_PROCESSES", 'steps with runs_in="process" at once, else the cores'),
    Setting("keep_logs", bool, "JETFLOW_KEEP_LOGS", "keep what steps log with their runs, for `jetflow logs`", False),
    Setting("durable", bool, "JETFLOW_DURABLE", "for servers with sync_interval: always", False),
    Setting("replicas", int, "JETFLOW_REPLICAS", "replicas of each stream, when it is made", 1),
    Setting("max_bytes", int, "JETFLOW_MAX_BYTES", "bytes of each stream that refuses what is new, when it is made"),
    Setting("health_port", int, "JETFLOW_HEALTH_PORT", "where a worker answers /livez, /readyz and /metrics"),
    Setting("health_host", str, "JETFLOW_HEALTH_HOST", "the address that it listens on for them", "127.0.0.1"),
    Setting("labels", str, "JETFLOW_LABELS", "what a worker has, for steps that require it: gpu,memory=64"),
    Setting("log_format", str, "JETFLOW_LOG_FORMAT", "how lines of the log are written: text or json", "text"),
    Setting("log_level", str, "JETFLOW_LOG_LEVEL", "what commands log: debug, info, warning or error", "info"),
)

NAMED: Final[dict[str, Setting]] = {setting.name: setting for setting in SETTINGS}


def settings_of(given: Mapping[str, object] | None = None) -> dict[str, Found]:
    """Return each setting that has a value, by name. ``given`` are arguments; None is one that was not given.

    Raises:
        InvalidSetting: a variable or a file says what no setting can be, or a file holds a secret.
    """
    found = {setting.name: Found(setting.default, DEFAULT) for setting in SETTINGS if setting.default is not None}
    found |= _in_files()
    for setting in SETTINGS:
        text = os.environ.get(setting.variable, "").strip()
        if text:
            found[setting.name] = Found(_read(setting, text), setting.variable)
    found |= {name: Found(value, ARGUMENT) for name, value in (given or {}).items() if value is not None}
    return found


def value_of(name: str, given: object = None) -> Any:
    """Return one setting; None where nothing says anything.

    Raises:
        InvalidSetting: see `settings_of`.
    """
    if given is not None:
        return given
    found = settings_of().get(name)
    return None if found is None else found.value


def _read(setting: Setting, text: str) -> object:
    """Return what a variable says."""
    if setting.kind is bool:
        said = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower())
        if said is not None:
            return said
        raise InvalidSetting(setting.variable, text, "it must be true or false")
    try:
        return setting.kind(text)
    except ValueError:
        raise InvalidSetting(setting.variable, text, f"it must be {_KINDS[setting.kind]}") from None


_KINDS: Final = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _in_files() -> dict[str, Found]:
    here = Path.cwd()
    for directory in (here, *here.parents):
        for name in (FILE, PROJECT):
            file = directory / name
            table = _table_of(file)
            if table is not None:
                return {key: Found(_checked(file, key, value), str(file)) for key, value in table.items()}
    return {}


def _table_of(file: Path) -> dict[str, Any] | None:
    """Return what a file says of jetflow; None if it does not exist, or says nothing."""
    try:
        parsed = tomllib.loads(file.read_text())
    except OSError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if file.name == PROJECT:  # whose it is says so
            return None
        raise InvalidSetting(str(file), None, f"it is no TOML: {error}") from None
    if file.name == FILE:
        return parsed
    tools: dict[str, Any] = parsed.get("tool", {})
    table: dict[str, Any] | None = tools.get("jetflow")
    if table is not None and not isinstance(table, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidSetting(f"tool.jetflow in {file}", table, "it must be a table")
    return table


def _checked(file: Path, key: str, value: object) -> object:
    setting = NAMED.get(key)
    if setting is None:
        near = difflib.get_close_matches(key, NAMED, 1)
        hint = f"did you mean {near[0]}?" if near else "`jetflow config` lists all"
        raise InvalidSetting(f"{key} in {file}", None, f"there is no such setting: {hint}")
    if setting.secret or ("@" in str(value) and key == "server"):
        raise InvalidSetting(
            f"{key} in {file}", None, f"no secret belongs into a file of a project: set {setting.variable}"
        )
    fits = isinstance(value, bool) is (setting.kind is bool) and isinstance(
        value, (int, float) if setting.kind is float else setting.kind
    )
    if not fits:
        raise InvalidSetting(f"{key} in {file}", value, f"it must be {_KINDS[setting.kind]}")
    return float(cast(float, value)) if setting.kind is float else value
