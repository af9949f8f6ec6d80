"""The `jetflow` command as its users have it: real processes, a real server, their output and exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from jetflow.server import NatsServer, ServerOptions
from tests.credentials import Operator, make_certificate
from tests.integration.commands import CONNECTING, FLOWS, Ended, Start, one_line, run, working

# --- worker, trigger, show -------------------------------------------------------------------------------------


async def test_a_run_is_triggered_awaited_and_shown(start: Start) -> None:
    async with working(start):
        ended = await run(start, "trigger", "total-squares", '{"items": [1, 2, 3]}', "--key", "k", "--wait")
        assert ended.status == 0
        assert json.loads(ended.output) == {"total": 14}
        run_id = one_line(ended.errors).removeprefix("run ")

        again = await run(start, "trigger", "total-squares", '{"items": [1, 2, 3]}', "--key", "k")
        assert again == (0, f"{run_id}\n", "")

        shown = json.loads((await run(start, "show", run_id, "--json")).output)
        assert (shown["id"], shown["status"], shown["key"]) == (run_id, "succeeded", "k")
        assert [step["name"] for step in shown["steps"]] == ["spread", "report"]
        assert shown["totals"]["spawned"] == shown["totals"]["succeeded"] == len(shown["children"]) == 3

        page = (await run(start, "show", run_id)).output
        assert "spread" in page
        assert "report after spread" in page
        assert "3 children  3 succeeded" in page


async def test_what_is_stored_is_told_with_its_cost(start: Start) -> None:
    async with working(start):
        assert (await run(start, "trigger", "square", "5", "--wait")).output == "25\n"
        storage = json.loads((await run(start, "doctor", "--json")).output)
        page = (await run(start, "doctor")).output
    stored = {stream["name"].rpartition("_")[2]: stream["messages"] for stream in storage["streams"]}
    assert (stored["tasks"], stored["records"], stored["timers"]) == (1, 1, 0)
    assert storage["memory"] > 0
    assert "history: about 0 MB of the server's memory" in page
    assert "JF_" in page


async def test_a_level_is_passed_on(start: Start) -> None:
    async with working(start):
        refused = await run(start, "trigger", "square", "5", "--level", "urgent")
        assert refused.status != 0
        assert "'urgent': the workflow declares no levels" in refused.errors
        published = await run(start, "publish", "order.paid", "1", "--level", "very urgent")
        assert published.status != 0
        assert "is a name" in published.errors


async def test_children_come_in_pages(start: Start) -> None:
    async with working(start):
        ended = await run(start, "trigger", "total-squares", '{"items": [1, 2, 3]}', "--wait", "--json")
        answer = json.loads(ended.output)
        assert answer == {"run": answer["run"], "status": "succeeded", "output": {"total": 14}}

        first = (await run(start, "show", answer["run"], "--children", "2")).output
        assert first.count(" square ") == 2
        page = first.rpartition("--page ")[2].strip()
        rest = await run(start, "show", answer["run"], "--children", "2", "--page", page)
        assert rest.output.count(" square ") == 1
        assert "--page" not in rest.output


async def test_a_failed_run_is_exit_status_1_and_says_why(start: Start) -> None:
    async with working(start):
        ended = await run(start, "trigger", "broken", "7", "--wait", "--json")
        answer = json.loads(ended.output)
        assert (ended.status, answer["status"]) == (1, "failed")
        assert answer["error"]["type"] == "ValueError"
        assert "in broken" in answer["error"]["traceback"]
        error = "failed in step 'run': ValueError: no [bold]7[/bold]\n"
        assert ended.errors.endswith(error)
        assert "Traceback" not in ended.errors

        verbose = await run(start, "trigger", "broken", "7", "--wait", "--verbose")
        assert (verbose.status, verbose.output) == (1, "")
        assert "in broken" in verbose.errors

        page = await run(start, "show", answer["run"])
        assert page.status == 0
        assert "└ attempt 1  failed" in page.output
        assert "ValueError: no [bold]7[/bold]" in page.output


async def test_the_input_comes_from_stdin_and_files_too(start: Start, tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text("9")
    async with working(start, "flows:square"):
        assert (await run(start, "trigger", "square", "@n.json", "--wait")).output == "81\n"
        assert (await run(start, "trigger", "square", "-", "--wait", stdin=b" 8 ")).output == "64\n"
        assert (await run(start, "trigger", "square", "-3", "--wait")).output == "9\n"


async def test_waiting_ends_at_the_timeout_or_with_ctrl_c_and_the_run_goes_on(start: Start) -> None:
    async with working(start):
        ended = await run(start, "trigger", "stuck", '"a"', "--wait", "--timeout", "0.2")
        assert ended.status == 1
        assert ended.errors.endswith("has not ended within 0.2 s; it goes on\n")

        async with start("trigger", "stuck", '"b"', "--wait") as waiting:
            await waiting.line("run ")
            waiting.interrupt()
            ended = await waiting.ended()
        assert ended.status == 130
        assert ended.errors.endswith(" goes on\n")


async def test_progress_is_drawn_on_a_terminal(start: Start) -> None:
    program = (
        "import os, pty, sys\n"
        "status = pty.spawn([sys.executable, '-m', 'jetflow.cli', *sys.argv[1:]])\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    async with working(start):
        ended = await run(start, "trigger", "total-squares", '{"items": [1, 2]}', "--wait", program=program)
    assert ended.status == 0
    assert "report" in ended.output
    assert "2 children" in ended.output
    assert '"total": 5' in ended.output


# --- what is refused -------------------------------------------------------------------------------------------


async def test_an_unknown_workflow_is_told_with_near_names(start: Start) -> None:
    async with working(start):
        ended = await run(start, "trigger", "sqare")
    assert (ended.status, ended.output) == (1, "")
    assert "did you mean 'square'" in one_line(ended.errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trigger", "square", "{a: 1}"], "the input is not JSON"),
        (["trigger", "square", "{a:", "1}"], "what is '1}' for? Quote JSON for the shell"),
        (["show", "a", "b"], "what is 'b' for?"),
        (["trigger", "square", "@none.json"], "cannot read 'none.json'"),
        (["trigger", "square", "-"], "the input on stdin is not JSON"),
        (["trigger", "square", "1", "--metadata", "[1]"], "--metadata is a JSON object"),
        (["trigger", "square", "--timeout", "3"], "give --wait, too"),
        (["trigger"], "NAME"),
        (["show", "x", "--page", "two"], "--page is 'two'"),
        (["worker"], "nothing to run"),
        (["worker", "flaws"], "there is no module 'flaws'"),
        (["worker", "flows:sqare"], "has no 'sqare'; did you mean 'square'?"),
        (["worker", "flows:nothing"], "'flows:nothing' is a object, not a Workflow"),
        (["worker", "json"], "module 'json' has no Workflow object"),
        (["worker", "none.py:flow"], "there is no file 'none.py'"),
        (["worker", "flows", "--slots", "0"], "--slots is 0: it must be above 0"),
        (["worker", "flows", "--slots", "many"], '"many"'),
        (["dev", "flows", "--port", "4222"], "unset NATS_URL"),
        (["wroker"], 'Did you mean "worker"?'),
    ],
    ids=" ".join,
)
async def test_a_command_line_that_makes_no_sense_is_exit_status_2(
    start: Start, arguments: list[str], message: str
) -> None:
    ended = await run(start, *arguments)
    assert (ended.status, ended.output) == (2, "")
    assert one_line(ended.errors).startswith("error: ")
    assert message in ended.errors


async def test_an_error_in_the_users_module_is_told_with_its_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("from jetflow import workflow\n\nworkflow('not a name')(print)\n")
    ended = await run(start, "worker", "wrong")
    assert ended.status == 1
    assert "cannot import 'wrong': InvalidName" in one_line(ended.errors)
    assert "wrong.py:3)" in ended.errors


async def test_an_error_deep_in_imports_is_told_with_the_users_frames(start: Start, tmp_path: Path) -> None:
    """And without those of Python's own modules, where it was raised."""
    (tmp_path / "settings.py").write_text("import json\n\n\ndef read(text):\n    return json.loads(text)\n")
    (tmp_path / "deep.py").write_text("from settings import read\n\nlimits = read('none')\n")
    ended = await run(start, "worker", "deep")
    assert ended.status == 1
    first, *frames = ended.errors.replace(f"{tmp_path}{os.sep}", "").splitlines()
    assert first.startswith("error: cannot import 'deep': JSONDecodeError: Expecting value")
    assert first.endswith(" (settings.py:5)")
    assert frames == ["  deep.py:3: limits = read('none')", "  settings.py:5: return json.loads(text)"]


async def test_a_line_that_is_not_python_is_told_with_its_place(start: Start, tmp_path: Path) -> None:
    (tmp_path / "typo.py").write_text("def f(:\n    pass\n")
    (tmp_path / "deep.py").write_text("import typo\n")
    ended = await run(start, "worker", "deep")
    assert ended.status == 1
    assert "SyntaxError: invalid syntax (" in ended.errors
    assert ended.errors.replace(f"{tmp_path}{os.sep}", "").endswith("  deep.py:1: import typo\n  typo.py:1: def f(:\n")


async def test_no_server_is_one_line(start: Start) -> None:
    ended = await run(start, "show", "0" * 32, server="nats://127.0.0.1:1")
    assert (ended.status, ended.output) == (1, "")
    assert "no NATS server answers at nats://127.0.0.1:1" in one_line(ended.errors)


async def test_a_missing_extra_is_named(start: Start) -> None:
    program = "import sys; sys.modules['cyclopts'] = None; from jetflow.cli import main; sys.exit(main())"
    ended = await run(start, "--help", program=program)
    assert ended.status == 1
    assert "pip install 'jetflow-nats[cli]'" in one_line(ended.errors)


# --- how commands end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_worker_with_status_0(start: Start, number: signal.Signals) -> None:
    async with start("worker", "flows.py:square") as worker:
        await worker.line(" runs square")
        worker.process.send_signal(number)
        ended = await worker.ended()
    assert (ended.status, ended.output) == (0, "")
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("workflow", ["stuck", "stuck-thread"])
async def test_a_second_ctrl_c_ends_the_grace_time(start: Start, workflow: str) -> None:
    async with start("worker", "flows") as worker:
        await worker.line(" runs ")
        await run(start, "trigger", workflow, '"here"')
        await worker.line("stuck here")
        worker.interrupt()
        await worker.line(" stops")
        worker.interrupt()
        ended = await worker.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_a_reader_that_went_away_is_no_error(start: Start, form: tuple[str, ...]) -> None:
    program = (
        "import os, sys; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "from jetflow.cli import main; sys.exit(main())\n"
    )
    async with working(start):
        run_id = (await run(start, "trigger", "square", "1")).output.strip()
        ended = await run(start, "show", run_id, *form, program=program)
    assert (ended.status, ended.errors) == (141, "")


# --- dev -------------------------------------------------------------------------------------------------------


async def test_dev_is_a_server_and_a_worker(start: Start, tmp_path: Path) -> None:
    run_ids: set[str] = set()
    for _ in range(2):
        async with start("dev", "flows", "--port", "0", "--store", "data", server=None) as dev:
            url = (await dev.line("NATS_URL=")).strip().removeprefix("NATS_URL=")
            await dev.line(" runs ")
            ended = await run(start, "trigger", "square", "5", "--wait", "--json", server=url)
            run_ids.add(json.loads(ended.output)["run"])
            for run_id in run_ids:  # the run of the first time, too: it is in the store
                assert '"output":25' in (await run(start, "show", run_id, "--json", server=url)).output
            dev.interrupt()
            assert (await dev.ended()).status == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    assert (tmp_path / "data").is_dir()


async def test_dev_uses_the_server_that_nats_url_names(start: Start, nats_server: NatsServer) -> None:
    async with start("dev", "flows", "--json") as dev:
        told = json.loads(await dev.line("url"))
        assert told["url"] == nats_server.url
        assert told["dashboard"].startswith("http://127.0.0.1:")
        await dev.line(" runs ")
        assert (await run(start, "trigger", "square", "5", "--wait")).output == "25\n"
        dev.interrupt()
        assert (await dev.ended()).status == 0


async def test_dev_reloads_the_worker_when_a_file_changes(start: Start, tmp_path: Path) -> None:
    flows = tmp_path / "flows.py"
    async with start("dev", "flows", "--reload") as dev:
        await dev.line(" runs ")
        assert (await run(start, "trigger", "square", "5", "--wait")).output == "25\n"

        flows.write_text("this is not Python\n")
        await dev.line("it starts again at the next change")
        flows.write_text(FLOWS.replace("return n * n", "return n * n + 1"))
        await dev.line(" runs ", times=2)
        assert (await run(start, "trigger", "square", "5", "--wait")).output == "26\n"

        dev.interrupt()
        ended = await dev.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.errors


async def test_dev_starts_a_worker_again_that_dies(start: Start, tmp_path: Path) -> None:
    """And other commands in its directory find its server, until it ends."""
    async with start("dev", "flows", "--port", "0", server=None) as dev:
        worker = await dev.line(" runs ")
        assert (await run(start, "trigger", "square", "5", "--wait", server=None)).output == "25\n"
        os.kill(int(worker.partition(" runs ")[0].rpartition("-")[2]), signal.SIGKILL)
        await dev.line("was killed by SIGKILL: another one starts at once")
        await dev.line(" runs ", times=2)
        assert (await run(start, "trigger", "square", "6", "--wait", server=None)).output == "36\n"

        async with start("dev", "flows", "--port", "0", server=None) as other:
            await other.line("another jetflow dev runs here")
            await other.line(" runs ", times=2)
            other.interrupt()
            assert (await other.ended()).status == 0
        assert (tmp_path / ".jetflow" / "dev.json").exists()
        dev.interrupt()
        assert (await dev.ended()).status == 0
    assert not (tmp_path / ".jetflow" / "dev.json").exists()


async def test_dev_ends_with_a_worker_that_makes_no_sense(start: Start) -> None:
    ended = await run(start, "dev", "nosuch", "--port", "0", server=None)
    assert ended.status == 2
    assert "nosuch" in ended.errors
    assert "Traceback" not in ended.errors


async def test_dev_says_in_one_line_that_a_port_is_taken(start: Start, nats_server: NatsServer) -> None:
    port = nats_server.url.rpartition(":")[2]
    ended = await run(start, "dev", "flows", "--port", port, server=None)
    assert (ended.status, ended.errors) == (2, f"error: port {port} is taken\n")


# --- who connects ----------------------------------------------------------------------------------------------

SECRET = "s3cr3t-w0rd"


@pytest.fixture
def guarded() -> Generator[NatsServer]:
    """A server that lets only one user in."""
    options = ServerOptions(config=f'authorization {{ user: "ann", password: "{SECRET}" }}\n')
    server = NatsServer(options=options)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


async def test_all_commands_connect_as_the_user_that_is_named(start: Start, guarded: NatsServer) -> None:
    """The password comes from the environment, and is in no output."""
    environment = {"NATS_PASSWORD": SECRET}
    place = ("--server", guarded.url, "--user", "ann")

    async def ask(*arguments: str) -> Ended:
        ended = await run(start, *arguments, *place, environment=environment)
        assert SECRET not in ended.output + ended.errors
        return ended

    for reload in ((), ("--reload",)):
        async with start("dev", "flows", *reload, *place, environment=environment) as dev:
            assert await dev.line("NATS_URL=") == f"NATS_URL={guarded.url}\n"
            await dev.line(" runs ")
            assert (await ask("trigger", "square", "5", "--wait")).output == "25\n"
            dev.interrupt()
            ended = await dev.ended()
        assert (ended.status, SECRET in ended.output + ended.errors) == (0, False)
    run_id = one_line((await ask("trigger", "square", "6", "--key", "k")).output)
    assert json.loads((await ask("show", run_id, "--json")).output)["status"] == "queued"
    other = one_line((await ask("trigger", "square", "7")).output)
    assert (await ask("cancel", other)).output == f"run {other} is cancelled\n"
    async with start("worker", "flows", *place, environment=environment) as worker:
        await worker.line(" runs ")
        assert (await ask("trigger", "square", "6", "--key", "k", "--wait")).output == "36\n"
        worker.interrupt()
        assert (await worker.ended()).status == 0


async def test_all_commands_take_a_credentials_file_and_begin_with_tls(start: Start, tmp_path: Path) -> None:
    """Whatever is logged, it is neither the JWT nor the seed."""
    await make_certificate(tmp_path, "server")
    operator, file = Operator(), tmp_path / "app.creds"
    text, seed = operator.credentials()
    file.write_text(text)
    jwt = text.splitlines()[1]
    tls = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key", handshake_first: true }}\n'

    async with NatsServer(options=ServerOptions(config=operator.config() + tls)) as server:
        place = ("--server", server.url, "--creds", "app.creds", "--tls-ca", "server.pem", "--tls-first")

        async def ask(*arguments: str) -> Ended:
            ended = await run(start, *arguments, *place)
            assert ended.status == 0, ended.errors
            return ended

        said: list[Ended] = []
        for command in (("dev", "flows", "--reload"), ("worker", "flows")):
            async with start(*command, *place, "--log-level", "debug") as worker:
                await worker.line(" runs ")
                said.append(await ask("trigger", "square", "5", "--wait"))
                worker.interrupt()
                said.append(await worker.ended())
        queued = await ask("trigger", "square", "6")
        said += [queued, await ask("show", one_line(queued.output)), await ask("cancel", one_line(queued.output))]
    assert [ended.output for ended in said].count("25\n") == 2
    assert not [ended for ended in said for secret in (seed, jwt) if secret in ended.output + ended.errors]


async def test_who_is_refused_gets_one_line_without_the_password(start: Start, guarded: NatsServer) -> None:
    place = ("--server", guarded.url, "--user", "ann")
    refused = await run(start, "trigger", "square", "5", *place, environment={"NATS_PASSWORD": "wr0ng"})
    assert refused.status == 1
    assert "refused the user 'ann'" in one_line(refused.errors)
    assert "wr0ng" not in refused.errors
    missing = await run(start, "trigger", "square", "5", *place)
    assert missing == (2, "", "error: --user is ann, and no password is in the environment: set NATS_PASSWORD\n")


async def test_a_context_says_who_connects(start: Start, guarded: NatsServer, tmp_path: Path) -> None:
    """And the server with it, whatever NATS_URL and NATS_TOKEN say."""
    context = tmp_path / "production.json"
    context.write_text(json.dumps({"url": guarded.url, "user": "ann", "password": SECRET}))
    environment = {"NATS_TOKEN": "another"}
    async with start("dev", "flows", "--context", str(context), environment=environment) as dev:
        assert await dev.line("NATS_URL=") == f"NATS_URL={guarded.url}\n"
        await dev.line(" runs ")
        ended = await run(start, "trigger", "square", "5", "--wait", "--context", str(context), environment=environment)
        assert ended.output == "25\n"
        dev.interrupt()
        assert (await dev.ended()).status == 0


async def test_options_of_a_named_server_are_none_of_the_embedded_one(start: Start) -> None:
    ended = await run(start, "dev", "flows", "--creds", "app.creds", server=None)
    assert ended == (2, "", "error: --creds is for a server that is named: give --server or --context\n")


# --- help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", CONNECTING)
async def test_each_help_has_an_example(start: Start, command: str) -> None:
    ended = await run(start, command, "--help")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.count(f"jetflow {command}") >= 2
    assert "--json" in ended.output or command in ("worker", "dev")


async def test_the_version_is_told(start: Start) -> None:
    ended = await run(start, "--version")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.startswith("jetflow ")
