"""`jetflow trigger`: start a run, and wait for it if asked to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json, read_json
from jetflow.cli.options import FLAG, AsJson, UsageError, Verbose
from jetflow.cli.place import Place
from jetflow.cli.progress import following
from jetflow.client import Run
from jetflow.errors import ResultTimeout, RunFailed
from jetflow.runs.whens import When


def trigger(
    name: Annotated[str, Parameter(help="The workflow's name.")],
    input: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="JSON; `-` reads it from stdin, `@file` from a file.")
    ] = "null",
    /,
    *,
    key: Annotated[str | None, Parameter(help="The same key of the same workflow is the same run.")] = None,
    metadata: Annotated[
        str | None,
        Parameter(help="A JSON object that the run and its descendants see, also as `-` or `@file`."),
    ] = None,
    level: Annotated[str | None, Parameter(help="How urgent it is: one of the levels of its workflow.")] = None,
    wait: Annotated[bool, FLAG, Parameter(help="Wait for the run to end, and print its output.")] = False,
    timeout: Annotated[float | None, Parameter(help="Seconds to wait; the run goes on after them.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Start a run, and print its id.

    With --wait the output is printed as JSON instead, and the id and the progress go to stderr. The exit status
    tells how the run has ended: 0 succeeded, 1 failed, 3 cancelled, 4 timed out.

    ```
    jetflow trigger index-tree '{"root": "/usr/lib"}' --key nightly --wait --timeout 60
    jetflow trigger index-tree @input.json --context production
    ```
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout is how long to wait: give --wait, too")
    if timeout is not None and timeout <= 0:
        raise UsageError(f"--timeout is {timeout:g}: it must be above 0")
    value = read_json(input, "the input")
    details = None if metadata is None else _metadata(metadata)
    return loop.run(_trigger(place, name, value, key, details, level, _Waiting(wait, timeout, as_json, verbose)))


class _Waiting:
    """Whether to wait, how long, and how to say what came."""

    def __init__(self, wait: bool, timeout: float | None, as_json: bool, verbose: bool) -> None:
        self.wait = wait
        self.timeout = timeout
        self.as_json = as_json
        self.verbose = verbose


def _metadata(argument: str) -> Mapping[str, Any]:
    value = read_json(argument, "--metadata")
    if not isinstance(value, dict):
        raise UsageError('--metadata is a JSON object, such as \'{"user": "ann"}\'')
    return value  # pyright: ignore[reportUnknownVariableType] - keys of JSON objects are strings


async def _trigger(
    place: Place,
    name: str,
    value: Any,
    key: str | None,
    metadata: Mapping[str, Any] | None,
    level: str | None,
    waiting: _Waiting,
) -> int:
    async with place.connect() as client:
        when = When() if level is None else When(level=level)
        run = await client.trigger(name, value, key=key, metadata=metadata, **when)
        if not waiting.wait:
            if waiting.as_json:
                print_json({"run": run.id})
            else:
                print(run.id)
            _print_link(place, run.id)
            return 0
        print(f"run {run.id}", file=sys.stderr, flush=True)
        _print_link(place, run.id)
        try:
            async with following(client, run.id):
                output = await run.result(waiting.timeout)
        except RunFailed as failed:
            _print_failure(failed, waiting)
            raise
        except ResultTimeout:
            if waiting.as_json:
                print_json({"run": run.id, "status": await run.status()})
            raise
        except asyncio.CancelledError:
            print(f"run {run.id} goes on", file=sys.stderr)
            raise
        _print_output(run, output, waiting)
    return 0


def _print_link(place: Place, run: str) -> None:
    """Say where the run is to be seen, if that is known."""
    if place.dev is not None and place.dev.dashboard is not None:
        print(f"{place.dev.dashboard}/runs/{run}", file=sys.stderr, flush=True)


def _print_output(run: Run[Any], output: Any, waiting: _Waiting) -> None:
    print_json({"run": run.id, "status": "succeeded", "output": output} if waiting.as_json else output)


def _print_failure(failed: RunFailed, waiting: _Waiting) -> None:
    if waiting.as_json:
        errors = [
            {
                "type": error.error_type,
                "message": error.error_message,
                "step": error.step,
                "traceback": error.traceback,
            }
            for error in failed.errors
        ]
        print_json({"run": failed.run_id, "status": failed.status, "error": errors[0], "errors": errors})
    if waiting.verbose:
        for error in failed.errors:
            if error.traceback:
                print(error.traceback.rstrip(), file=sys.stderr)
