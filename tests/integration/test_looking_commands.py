"""The commands that look: each against a live server, and on a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from jetflow.cli.view import Seen, view_of
from jetflow.runs.query.rows import ErrorGroup, RunTotals
from jetflow.runs.trace import RunTrace, StepTotals, StepTrace, Totals
from tests.integration.commands import Ended, Start, one_line, run, working

RUN = "0" * 32
SVG = "{http://www.w3.org/2000/svg}"
LINES = 24
COLUMNS = 80

ON_TERMINAL = f"""
import fcntl, os, pty, signal, struct, sys, termios
os.environ.pop("COLUMNS", None)
child, terminal = pty.fork()
if not child:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", {LINES}, {COLUMNS}, 0, 0))
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.executable, [sys.executable, "-m", "jetflow.cli", *sys.argv[1:]])
signal.signal(signal.SIGINT, lambda *_: os.write(terminal, b"\\x03"))
while True:
    try:
        written = os.read(terminal, 65536)
    except OSError:
        break
    if not written:
        break
    sys.stdout.buffer.write(written)
    sys.stdout.buffer.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""A program that runs a command on a terminal of that size, and copies what it draws. Interrupted, it types Ctrl-C."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def on_terminal(start: Start, *arguments: str) -> Ended:
    ended = await run(start, *arguments, program=ON_TERMINAL)
    return Ended(ended.status, ESCAPES.sub("", ended.output), ended.errors)


async def triggered(start: Start, workflow: str, value: str, *more: str) -> str:
    """Trigger a run, wait for its end, and return its id."""
    ended = await run(start, "trigger", workflow, value, "--wait", "--json", *more)
    return json.loads(ended.output)["run"]


def lines_of(ended: Ended) -> Sequence[str]:
    return [line for line in re.split(r"[\r\n]+", ended.output) if line.strip()]


async def test_runs_are_listed_by_status_key_and_metadata(start: Start) -> None:
    async with working(start):
        good = await triggered(start, "square", "5", "--key", "five", "--metadata", '{"customer": "acme", "n": 3}')
        bad = await triggered(start, "broken", "7")
        listed = (await run(start, "list")).output
        assert listed.index(bad) < listed.index(good)
        assert "ValueError: no [bold]7[/bold]" in listed
        assert "2 runs" in listed
        for chosen in (["--status", "succeeded"], ["--key", "five"], ["--meta", "customer=acme", "--meta", "n=3"]):
            found = json.loads((await run(start, "list", "--json", *chosen)).output)
            assert [row["id"] for row in found["items"]] == [good], chosen
        found = json.loads((await run(start, "list", "--workflow", "broken", "--since", "1h", "--json")).output)
        assert [(row["id"], row["status"]) for row in found["items"]] == [(bad, "failed")]
        assert found["searched"]["complete"]
        first = (await run(start, "list", "--limit", "1")).output
        page = first.rpartition("--page ")[2].strip()
        assert good in (await run(start, "list", "--limit", "1", "--page", page)).output
        shown = await on_terminal(start, "list")
        assert good in shown.output
        assert max(map(len, lines_of(shown))) <= COLUMNS
    empty = await run(start, "list", "--workflow", "none")
    assert (empty.status, empty.output) == (0, "no run\n")


async def test_a_run_is_watched_to_its_end(start: Start) -> None:
    """On a pipe a line a change, with --json an object each, on a terminal a view; the exit status tells the end."""
    async with start("worker", "flows", "--grace", "0") as worker:
        await worker.line(" runs ")
        good = await triggered(start, "total-squares", '{"items": [1, 2, 3]}')
        watched = await run(start, "watch", good)
        assert watched.status == 0
        assert "children 3: 3 succeeded" in watched.output
        assert watched.output.endswith(f" run {good} succeeded\n")
        [*_, last] = (await run(start, "watch", good, "--json")).output.splitlines()
        assert json.loads(last)["totals"]["succeeded"] == 3
        shown = await on_terminal(start, "watch", good)
        assert shown.status == 0
        assert "3 of 3 children  3 succeeded" in shown.output

        bad = await triggered(start, "broken", "7")
        ended = await run(start, "watch", bad)
        assert ended.status == 1
        assert "step run failed: ValueError: no [bold]7[/bold]" in ended.output

        stuck = one_line((await run(start, "trigger", "stuck", '"a"')).output)
        await worker.line("stuck a")
        async with start("watch", stuck) as watching:
            await watching.line("step run running")
            [held] = json.loads((await run(start, "workers", "--json")).output)[0]["running"]
            assert (held["run"], held["step"], held["state"]) == (stuck, "run", "running")
            assert stuck in (await run(start, "workers", "--running")).output
            await run(start, "cancel", stuck)
            assert (await watching.ended()).status == 3
        worker.interrupt()
        await worker.ended()
    assert (await run(start, "watch", "0" * 32)).status == 1


async def test_a_cancelled_run_is_told_by_the_exit_status_of_trigger(start: Start) -> None:
    async with working(start), start("trigger", "stuck", '"a"', "--wait") as waiting:
        stuck = (await waiting.line("run ")).strip().removeprefix("run ")
        await run(start, "cancel", stuck)
        assert (await waiting.ended()).status == 3


async def test_failures_are_shown_in_groups(start: Start) -> None:
    async with working(start):
        for number in (7, 8, 9):
            await triggered(start, "broken", str(number))
    shown = (await run(start, "errors", "--since", "1h")).output
    assert "ValueError: no [bold]…[/bold]" in shown
    assert "3 failures" in shown
    [group] = json.loads((await run(start, "errors", "--json")).output)["items"]
    assert (group["count"], group["type"], group["workflow"]) == (3, "ValueError", "broken")
    assert "3 failures" in (await on_terminal(start, "errors")).output
    assert (await run(start, "errors", "--workflow", "square")).output == "no failure\n"


async def test_queues_are_shown_paused_and_resumed(start: Start) -> None:
    absent = await run(start, "queues")
    assert (absent.status, "there is no namespace" in absent.errors) == (1, True)
    await run(start, "doctor")
    assert (await run(start, "queues")).output == "no queue: no worker has run here yet\n"
    assert (await run(start, "pause", "square")).status == 2
    async with working(start):
        pass
    await run(start, "trigger", "square", "1")
    rows = {row["workflow"]: row for row in json.loads((await run(start, "queues", "--json")).output)}
    assert (rows["square"]["step"], rows["square"]["paused_until"]) == ("run", None)
    assert (await run(start, "pause", "square")).output == "square: run paused\n"
    assert "paused" in (await on_terminal(start, "queues")).output
    paused = await run(start, "pause", "square", "run", "--for", "2h", "--json")
    assert json.loads(paused.output)["paused"]
    assert "paused until" in (await run(start, "queues")).output
    bounded = await run(start, "pause", "square", "--queue-ttl", "1h")
    assert bounded.output == "square: run paused, cancels what has waited for 1 h 00 min\n"
    assert "cancels what has waited for 1 h 00 min" in " ".join((await run(start, "queues")).output.split())
    assert (await run(start, "resume", "square")).output == "square: run resumed\n"
    async with working(start):
        assert (await run(start, "trigger", "square", "2", "--wait")).output == "4\n"


async def test_what_is_declared_is_listed_and_drawn(start: Start) -> None:
    async with working(start):
        assert "spread, report" in (await run(start, "workflows")).output
        assert "spread" in (await on_terminal(start, "workflows")).output
        drawn = (await run(start, "graph", "total-squares")).output
        assert "── spread" in drawn
        assert "   └─ report  after spread" in drawn
        mermaid = (await run(start, "graph", "total-squares", "--format", "mermaid")).output
        assert mermaid.splitlines() == ["flowchart LR", '    s0["spread"]', '    s1["report"]', "    s0 --> s1"]
        svg = (await run(start, "graph", "total-squares", "--format", "svg")).output
        assert [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")] == ["spread", "report"]
        shown = json.loads((await run(start, "graph", "total-squares", "--json")).output)
        assert [node["name"] for node in shown["graph"]["nodes"]] == ["spread", "report"]
        refused = await run(start, "graph", "total-sqares")
        assert (refused.status, "did you mean 'total-squares'" in refused.errors) == (1, True)


async def test_an_overview_fits_on_the_screen(start: Start) -> None:
    async with working(start):
        await triggered(start, "broken", "7")
        shown = (await run(start, "top")).output
        assert "1 root runs and 1 failures in the last hour" in shown
        overview = json.loads((await run(start, "top", "--json")).output)
        assert len(overview["workers"]) == 1
        async with start("top", "--every", "0.5", program=ON_TERMINAL) as live:
            await live.line("ValueError")
            live.interrupt()
            assert (await live.ended()).status == 130
        once = await on_terminal(start, "top", "--once")
        assert "jetflow top" in once.output
    assert (await run(start, "top", "--every", "0")).status == 2


async def test_children_are_shown_as_they_are_chosen(start: Start) -> None:
    async with working(start):
        parent = await triggered(start, "total-squares", '{"items": [1, 2, 3]}')
        shown = json.loads((await run(start, "show", parent, "--json", "--sort", "-n", "--children", "2")).output)
        assert [row["n"] for row in shown["children"]] == [2, 1]
        first = (await run(start, "show", parent, "--status", "succeeded", "--children", "2")).output
        assert "--status succeeded --page " in first
        page = first.rpartition("--page ")[2].strip()
        rest = await run(start, "show", parent, "--status", "succeeded", "--children", "2", "--page", page)
        assert rest.output.count(" square ") == 1
        assert "no failure" in (await run(start, "show", parent, "--errors")).output
        shown = await run(start, "show", parent, "--status", "failed", "--stack")
        assert "no step runs" in shown.output
        assert " square " not in shown.output
        assert (await run(start, "show", parent, "--sort", "colour")).status == 2
        assert max(map(len, lines_of(await on_terminal(start, "show", parent)))) <= COLUMNS


async def test_no_worker_is_told_as_such(start: Start) -> None:
    async with working(start):
        pass
    assert "no worker answers" in (await run(start, "workers")).output
    assert json.loads((await run(start, "workers", "--json")).output) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--status", "dead"], "status is 'dead': it must be one of open"),
        (["list", "--since", "yesterday"], "--since is 'yesterday': give a number and s, m, h, d or w"),
        (["list", "--meta", "customer"], "--meta is 'customer': give NAME=VALUE"),
        (["list", "--limit", "5000"], "limit is 5000: it must be from 1 to 1000"),
        (["list", "--page", "two"], "'two' is no cursor"),
        (["graph", "square", "--format", "png"], "png"),
    ],
)
async def test_what_makes_no_sense_is_refused(start: Start, arguments: list[str], message: str) -> None:
    await run(start, "doctor")  # which makes the namespace
    ended = await run(start, *arguments)
    assert ended.status == 2
    assert message in ended.errors


def drawn(seen: Seen, height: int) -> list[str]:
    console = Console(width=COLUMNS, height=LINES, force_terminal=False, file=None, record=True, highlight=False)
    with console.capture() as captured:
        console.print(view_of(seen, height=height))
    return captured.get().splitlines()


def wide(count: int) -> Seen:
    """Return a run of very many steps, one of which has spawned, with errors that hold control characters."""
    steps: list[Any] = [StepTrace(name=f"step{at}", status="succeeded") for at in range(count)]
    steps[count // 2] = StepTrace(name="busy", status="waiting", started=1.0, attempts=2)
    group = ErrorGroup(
        fingerprint="", type="E\x1b[2J", message="x" * 200, sample="", workflow="w", status="failed", count=4
    )
    totals = Totals(spawned=100_000, open=58_796, succeeded=41_200, failed=4)
    return Seen(
        trace=RunTrace(
            id="0" * 32, workflow="wide", status="running", root="0" * 32, steps=tuple(steps), triggered=1.0
        ),
        totals=RunTotals(
            run=RUN,
            root=RUN,
            status="running",
            at=0.0,
            totals=totals,
            steps=(StepTotals(step="busy", totals=totals, sealed=True),),
            rate=8100.0,
            eta=7.2,
        ),
        errors=9 * (group,),
    )


@pytest.mark.parametrize("height", [3, 6, 10, 23])
def test_a_view_is_never_taller_or_wider_than_the_screen(height: int) -> None:
    lines = drawn(wide(60), height)
    assert 1 < len(lines) <= height
    assert max(map(len, lines)) <= COLUMNS
    assert "\x1b" not in "".join(lines)
    assert any("busy" in line for line in lines) or height < 6


def test_a_view_shows_counts_rate_and_time_left() -> None:
    text = "\n".join(drawn(wide(3), 23))
    assert "41,204 of 100,000 children" in text
    assert "41,200 succeeded" in text


async def test_a_worker_is_drained_by_its_name(start: Start) -> None:
    async with working(start):
        name = json.loads((await run(start, "workers", "--json")).output)[0]["name"]
        assert (await run(start, "drain", name)).output == f"{name} takes no more tasks\n"
        assert "(stops)" in (await run(start, "workers")).output
    unknown = await run(start, "drain", "nobody")
    assert unknown.status == 1
    assert "no worker 'nobody' answers" in unknown.errors


async def test_every_command_fits_on_a_terminal(start: Start) -> None:
    """Each on 80 columns; what is wider is cut or wrapped by the command, and not by the terminal."""
    async with working(start):
        parent = await triggered(start, "total-squares", '{"items": [1, 2, 3]}', "--key", "k" * 100)
        await triggered(start, "broken", "7")
        commands: dict[tuple[str, ...], str] = {
            ("list",): parent,
            ("list", "--sort", "-took", "--search", "square"): parent,
            ("show", parent, "--tree", "--errors", "--stack", "--status", "succeeded"): "spread → square  3",
            ("watch", parent): "3 of 3 children",
            ("errors",): "1 failure",
            ("queues",): "square",
            ("workers", "--running"): "no step runs",
            ("top", "--once"): "jetflow top",
            ("workflows",): "spread",
            ("graph", "total-squares"): "└─ report",
            ("pause", "square"): "square: run paused",
            ("resume", "square"): "square: run resumed",
            ("trigger", "square", "4", "--wait"): "16",
            ("doctor",): "nats-server",
            ("cancel", parent): "ended already",
        }
        for command, told in commands.items():
            ended = await on_terminal(start, *command)
            assert told in ended.output, command
            assert max(map(len, lines_of(ended))) <= COLUMNS, command


async def test_commands_that_ask_for_little_fit_on_a_terminal(start: Start) -> None:
    async with working(start):
        well, ill = await triggered(start, "square", "3"), await triggered(start, "broken", "7")
        told = await on_terminal(start, "list", "--status", "failed,succeeded")
        assert well in told.output
        assert ill in told.output
        assert max(map(len, lines_of(told))) <= COLUMNS
    opened = await on_terminal(start, "open", well, "--print")
    assert f"/runs/{well}" in opened.output
    assert max(map(len, lines_of(opened))) <= COLUMNS


async def test_what_a_run_has_spawned_is_shown_as_a_tree(start: Start) -> None:
    async with working(start):
        parent = await triggered(start, "total-squares", '{"items": [1, 2, 3]}')
        alone = await triggered(start, "square", "3")
    shown = (await run(start, "show", parent, "--tree", "--children", "0")).output
    assert "  spread → square  3  3 succeeded  p50 " in shown
    [node] = json.loads((await run(start, "show", parent, "--tree", "--json")).output)["tree"]["children"]
    assert (node["step"], node["workflow"], node["totals"]["spawned"], len(node["runs"])) == ("spread", "square", 3, 3)
    assert "nothing spawned" in (await run(start, "show", alone, "--tree")).output


async def test_the_doctor_tells_what_is_worth_a_look(start: Start) -> None:
    async with working(start):
        well = await run(start, "doctor", "--json")
        found = {check["name"]: check for check in json.loads(well.output)["checks"]}
        assert {check["state"] for check in found.values()} == {"ok"}
        assert well.status == 0
        assert {"server", "streams", "account", "clock", "rights", "workers", "queues", "swept"} <= found.keys()
        await run(start, "pause", "square")
    await run(start, "trigger", "square", "1")
    await run(start, "trigger", "broken", "1")
    ill = await run(start, "doctor")
    assert ill.status == 1
    assert re.search(r"look +paused +paused: square/run \(jetflow resume", ill.output)
    assert re.search(r"look +queues +tasks wait, and no worker pulls: broken/run", ill.output)
    assert re.search(r"look +workers +no worker answers: 2 tasks wait", ill.output)
