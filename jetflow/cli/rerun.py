"""`jetflow rerun`: run again what has failed of a run, or of all that fit a filter."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import time
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.cli.runs import age_of, pair_of
from jetflow.errors import JetflowError
from jetflow.rerunning import Again


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Many:
    """Which root runs are run again, where no run is named."""

    workflow: Annotated[str | None, Parameter(help="Runs of this workflow.")] = None
    status: Annotated[str | None, Parameter(help="Runs that ended so; failed, if nothing is said.")] = None
    since: Annotated[str | None, Parameter(help="Runs that ended no longer ago than this: 90s, 15m, 2h, 7d.")] = None
    key: Annotated[str | None, Parameter(help="Runs with this key.")] = None
    meta: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--meta", "--metadata"), help="NAME=VALUE that the metadata have; again for more.", negative=()
        ),
    ] = ()
    dry_run: Annotated[bool, FLAG, Parameter(help="Begin nothing, and print which they are.")] = False

    @property
    def is_given(self) -> bool:
        """Whether anything was said of which they are."""
        return bool(self.workflow or self.status or self.since or self.key or self.meta)

    def asked(self) -> dict[str, Any]:
        """Return it as `Client.rerun_many` takes it."""
        return {
            "workflow": self.workflow,
            "status": self.status or "failed",
            "since": None if self.since is None else time() - age_of(self.since, "--since"),
            "key": self.key,
            "metadata": dict(pair_of(one) for one in self.meta) or None,
            "dry_run": self.dry_run,
        }


def rerun(
    run: Annotated[str | None, Parameter(help="The run's id; without one, what the options below say.")] = None,
    /,
    *,
    only: Annotated[Literal["failed", "all"], Parameter(help="Take over what has succeeded, or nothing.")] = "failed",
    from_step: Annotated[str | None, Parameter(help="Run this step again, and all behind it.")] = None,
    many: Many = Many(),
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Run again what has ended, as a new run with the same input, and print its id.

    What has succeeded is taken over, children included; what has failed, or never began, runs. The old run stays as it
    is. Of many those are found first that fit; Ctrl-C ends it, and what was begun goes on. The same command once more
    begins nothing twice. The exit status is 1 if one of many could not be run again.

    ```
    jetflow rerun 0199b2c3d4e5f60718293a4b5c6d7e8f
    jetflow rerun 0199b2c3d4e5f60718293a4b5c6d7e8f --from-step report
    jetflow rerun --workflow count-tree --since 12h --dry-run
    ```
    """
    if (run is None) == (not many.is_given):
        raise UsageError("name a run, or say which: by --workflow, --status, --since, --key or --meta")
    if run is not None and many.dry_run:
        raise UsageError("--dry-run is for many: one run is run again, or refused by name")
    if run is not None:
        return loop.run(_one(place, run, only, from_step, as_json=as_json))
    return loop.run(_many(place, many.asked(), only, from_step, as_json=as_json))


async def _one(place: Place, run: str, only: Literal["failed", "all"], step: str | None, *, as_json: bool) -> int:
    async with place.connect() as client:
        again = await client.rerun(run, only=only, from_step=step)
    if as_json:
        print_json({"run": run, "rerun": again.id, "created": bool(again.created)})
    else:
        print(again.id)
        if not again.created:
            print(f"run {run} was run again before", file=sys.stderr)
    return 0


async def _many(
    place: Place, asked: dict[str, Any], only: Literal["failed", "all"], step: str | None, *, as_json: bool
) -> int:
    found: list[Again] = []
    async with place.connect() as client:
        async for one in client.rerun_many(only=only, from_step=step, **asked):
            found.append(one)
            if not as_json:
                print(f"{one.run} {_told(one)}".rstrip(), flush=True)
    created = sum(one.created for one in found)
    refused = sum(one.error is not None and one.rerun is None for one in found)
    if as_json:
        print_json(
            [{"run": one.run, "rerun": one.rerun, "created": one.created, "error": _of(one.error)} for one in found]
        )
    elif asked["dry_run"]:
        print(f"{len(found):,} would be run again", file=sys.stderr)
    else:
        print(f"{created:,} of {len(found):,} are run again", file=sys.stderr)
    return 1 if refused else 0


def _told(one: Again) -> str:
    if one.created:
        return f"-> {one.rerun}"
    if one.rerun is not None:
        return f"was run again before, the newest is {one.rerun}"
    return str(one.error or "")


def _of(error: JetflowError | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}
