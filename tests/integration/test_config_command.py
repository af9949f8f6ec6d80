"""`jetflow config`, and that commands take what it shows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.integration.commands import Start, one_line, run, working


async def test_each_value_is_shown_with_where_it_is_from(start: Start, tmp_path: Path) -> None:
    (tmp_path / "jetflow.toml").write_text("slots = 7\n")
    environment = {"NATS_URL": "nats://ann:s3cr3t@h:4222", "NATS_TOKEN": "s3cr3t", "JETFLOW_KEEP": "60"}
    shown = await run(start, "config", "--grace", "3", environment=environment)
    assert shown.status == 0
    assert "s3cr3t" not in shown.output
    told = await run(start, "config", "--grace", "3", "--json", environment=environment)
    assert "s3cr3t" not in told.output
    found = {one["name"]: (one["value"], one["from"]) for one in msgspec.json.decode(told.output)}
    assert found["server"] == ("nats://h:4222", "NATS_URL")
    assert found["token"] == ("***", "NATS_TOKEN")
    assert found["slots"] == (7, str(tmp_path / "jetflow.toml"))
    assert found["keep"] == (60.0, "JETFLOW_KEEP")
    assert found["grace"] == (3.0, "argument")
    assert found["ack_wait"] == (5.0, "default")
    assert found["domain"] == (None, None)


async def test_commands_work_where_a_file_says(start: Start, tmp_path: Path, namespace: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.jetflow]\nnamespace = "{namespace}"\nslots = 1\nprocesses = 1\n')
    async with working(start):
        assert (await run(start, "trigger", "square", "5", "--wait")).output == "25\n"
        shown = await run(start, "workers", "--json")
    assert [worker["slots"] for worker in msgspec.json.decode(shown.output)] == [1]


async def test_a_value_that_cannot_be_is_a_misuse(start: Start, tmp_path: Path) -> None:
    refused = await run(start, "worker", "flows", environment={"JETFLOW_SLOTS": "0"})
    assert (refused.status, one_line(refused.errors)) == (2, "error: JETFLOW_SLOTS is 0: it must be above 0")
    (tmp_path / "jetflow.toml").write_text("slot = 1\n")
    refused = await run(start, "worker", "flows")
    assert refused.status == 2
    assert one_line(refused.errors).endswith("there is no such setting: did you mean slots?")
