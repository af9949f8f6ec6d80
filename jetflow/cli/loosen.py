"""`jetflow loosen`: let a run that waits for its children go on with fewer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.engine.policies import JoinPolicy
from jetflow.runs.loosening import LoosenedJoin


def loosen(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    at_least: Annotated[int | None, Parameter(help="So many successes are enough; the rest is cancelled.")] = None,
    keep_rest: Annotated[bool, FLAG, Parameter(help="Let the rest go on, with --at-least.")] = False,
    tolerate: Annotated[int | None, Parameter(help="So many may fail; all are waited for.")] = None,
    fraction: Annotated[float | None, Parameter(help="Such a share may fail, from 0 to 1; all are waited for.")] = None,
    step: Annotated[str | None, Parameter(help="The step that waits, where several do.")] = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Let a run that waits for its children go on with fewer than its code asks for.

    It is for a step that has returned, or is parked in `ctx.join(policy=...)`. It goes on at once if what has ended is
    enough. A policy is only loosened, never tightened; the same command again changes nothing.

    ```
    jetflow loosen 0199b2c3d4e5f60718293a4b5c6d7e8f --at-least 950
    jetflow loosen 0199b2c3d4e5f60718293a4b5c6d7e8f --step scan --fraction 0.05
    ```
    """
    told = loop.run(_loosen(place, run, _policy(at_least, tolerate, fraction, keep_rest=keep_rest), step))
    if as_json:
        print_json(
            {
                "run": run,
                "step": told.step,
                "children": told.children,
                "successes": told.successes,
                "changed": told.changed,
            }
        )
    else:
        word = "needs" if told.changed else "needed already"
        print(f"step {told.step} of run {run} {word} {told.successes} of {told.children} children to succeed")
    return 0


def _policy(at_least: int | None, tolerate: int | None, fraction: float | None, *, keep_rest: bool) -> JoinPolicy:
    if sum(one is not None for one in (at_least, tolerate, fraction)) != 1:
        raise UsageError("say what is enough, once: by --at-least, --tolerate or --fraction")
    if keep_rest and at_least is None:
        raise UsageError("--keep-rest is for --at-least: the others wait for all")
    try:
        if at_least is not None:
            return JoinPolicy.of_quorum(at_least, cancel_rest=not keep_rest)
        return JoinPolicy.tolerate(tolerate, fraction=fraction)
    except ValueError as error:
        raise UsageError(str(error)) from None


async def _loosen(place: Place, run: str, policy: JoinPolicy, step: str | None) -> LoosenedJoin:
    async with place.connect() as client:
        return await client.loosen(run, policy=policy, step=step)
