"""The settings that are not in code: one table, one order, and what is said of a value that cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jetflow.broker.access import access_of
from jetflow.errors import InvalidSetting
from jetflow.settings import SETTINGS, settings_of, value_of
from jetflow.worker.options import OPTIONS, WorkerOptions

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own, in which nothing is set."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_argument_counts_before_a_variable_before_a_file_before_the_default(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_of()["slots"] == (100, "default")
    (here / "pyproject.toml").write_text("[tool.jetflow]\nslots = 20\n")
    assert settings_of()["slots"] == (20, str(here / "pyproject.toml"))
    monkeypatch.setenv("JETFLOW_SLOTS", "30")
    assert settings_of()["slots"] == (30, "JETFLOW_SLOTS")
    assert settings_of({"slots": 40})["slots"] == (40, "argument")
    assert settings_of({"slots": None})["slots"] == (30, "JETFLOW_SLOTS")
    assert value_of("slots") == 30
    assert value_of("domain") is None


def test_the_nearest_file_that_says_anything_counts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = here / "a" / "b"
    inner.mkdir(parents=True)
    (here / "jetflow.toml").write_text('namespace = "outer"\n')
    (here / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(inner)
    assert settings_of()["namespace"] == ("outer", str(here / "jetflow.toml"))
    (here / "a" / "pyproject.toml").write_text('[tool.jetflow]\nnamespace = "inner"\n')
    assert settings_of()["namespace"].value == "inner"
    (here / "a" / "jetflow.toml").write_text('namespace = "own"\n')
    assert settings_of()["namespace"] == ("own", str(here / "a" / "jetflow.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slot = 1", "slot in .*: there is no such setting: did you mean slots?"),
        ("slots = 'many'", "slots in .* is 'many': it must be a whole number"),
        ("slots = true", "slots in .* is True: it must be a whole number"),
        ("durable = 1", "durable in .* is 1: it must be true or false"),
        ("password = 's3cr3t'", "password in .*: no secret belongs into a file of a project: set NATS_PASSWORD"),
        ("server = 'nats://a:s3cr3t@h'", "server in .*: no secret belongs into a file of a project: set NATS_URL"),
        ("slots = ", "it is no TOML"),
    ],
)
def test_what_a_file_cannot_say_is_named(here: Path, text: str, said: str) -> None:
    (here / "jetflow.toml").write_text(text)
    with pytest.raises(InvalidSetting, match=said) as refused:
        settings_of()
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("JETFLOW_SLOTS", "many", "JETFLOW_SLOTS is 'many': it must be a whole number"),
        ("JETFLOW_DURABLE", "maybe", "JETFLOW_DURABLE is 'maybe': it must be true or false"),
        ("JETFLOW_SLOTS", "0", "JETFLOW_SLOTS is 0: it must be above 0"),
    ],
)
def test_what_a_variable_cannot_say_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(InvalidSetting, match=said):
        WorkerOptions.from_settings()


def test_the_defaults_are_those_of_the_code() -> None:
    assert WorkerOptions.from_settings() == WorkerOptions()
    options = WorkerOptions()
    for setting in SETTINGS:
        if setting.name in OPTIONS:
            assert setting.default == getattr(options, OPTIONS[setting.name]), setting.name


def test_a_server_that_is_named_is_told_no_credentials_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://ours:4222")
    monkeypatch.setenv("NATS_USER", "ann")
    monkeypatch.setenv("NATS_PASSWORD", "s3cr3t")
    monkeypatch.setenv("JETFLOW_INBOX_PREFIX", "_INBOX.acme.worker")
    ours = access_of(None)
    assert (ours.servers, ours.auth.user, ours.auth.password) == (("nats://ours:4222",), "ann", "s3cr3t")
    assert ours.inbox == "_INBOX.acme.worker"
    assert not access_of("nats://theirs:4222").auth.names_somebody


def test_whoever_the_environment_names_counts_before_a_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "jetflow.toml").write_text('creds = "file.creds"\nserver = "nats://file:4222"\n')
    assert (access_of(None).servers, str(access_of(None).auth.creds)) == (("nats://file:4222",), "file.creds")
    monkeypatch.setenv("NATS_TOKEN", "t")
    assert (access_of(None).auth.token, access_of(None).auth.creds) == ("t", None)


def test_a_user_without_a_password_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_USER", "ann")
    with pytest.raises(InvalidSetting, match=r"NATS_USER is 'ann': no password .*: set NATS_PASSWORD"):
        access_of(None)


def test_the_page_lists_every_setting() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        (one.name, one.variable, one.about, "" if one.default is None else f"`{one.default}`") for one in SETTINGS
    ]
    assert rows == expected
