"""Plants faults in the Go SDK, one at a time, and expects the conformance suite to catch each: ``faults.py [NAME…]``.

A fault is a text of the SDK that stands for another one; ``go build -overlay`` builds the kit with it, so that nothing
of the SDK knows of faults.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import conformance.cases  # noqa: F401  the cases are there once they are imported
from conformance.suite import CASES, play

SDK: Final = Path(__file__).parents[1]
AT_ONCE: Final = 2
PATIENCE: Final = 0.4
"""What the bounds of cases are multiplied with: most wait for what never comes."""


@dataclass(frozen=True)
class Fault:
    """One text that stands for another one, what that means, and the cases that must catch it."""

    name: str
    about: str
    file: str
    right: str
    wrong: str
    caught_by: tuple[str, ...]


FAULTS: Final = (
    Fault(
        "no-mark",
        "A run that failed stores no mark.",
        "internal/runs/finish.go",
        "if !outcome.Well() {\n\t\to.Put",
        "if false {\n\t\to.Put",
        ("W11", "F01"),
    ),
    Fault(
        "count-first",
        "A child is counted before its outcome is stored.",
        "internal/runs/finish.go",
        "\tbody := o.Encode(outcome)\n",
        "\to.count(t, outcome)\n\tbody := o.Encode(outcome)\n",
        ("W10",),
    ),
    Fault(
        "no-live-copy",
        "Nobody is told how a child has ended.",
        "internal/runs/finish.go",
        "t.Parent != wire.None && o.isHeard(t) {",
        "false {",
        ("W10",),
    ),
    Fault(
        "no-look",
        "Who reaches SEAL does not look.",
        "internal/runs/finish.go",
        "case value >= wire.Seal && (first || bad):",
        "case false:",
        ("J01",),
    ),
    Fault(
        "no-look-for-parked",
        "A failed child does not look at a parked join.",
        "internal/runs/finish.go",
        "case bad && value > wire.Seal/2",
        "case false && value > wire.Seal/2",
        ("J03",),
    ),
    Fault(
        "alone-covers",
        "A parent's mark that says alone covers its children.",
        "marks.go",
        "*parent != runs.MarkAlone &&",
        "",
        ("C02",),
    ),
    Fault(
        "no-heartbeat",
        "A task that is held is not kept alive.",
        "worker.go",
        "one.say(inProgress)",
        "_ = one",
        ("W18",),
    ),
    Fault(
        "full-is-stored",
        "A stream that is full is taken for a subject that is taken, and that for stored.",
        "internal/broker/store.go",
        "case ack.Error == nil:",
        "case ack.Error == nil || ack.Error.ErrCode == 10077:",
        ("W28",),
    ),
    Fault(
        "taken-is-stored",
        "What was taken is not read back.",
        "internal/broker/store.go",
        "found != nil || o.Err != nil {",
        "true || found != nil {",
        ("W29",),
    ),
    Fault(
        "deliveries-are-attempts",
        "Each delivery counts as an attempt.",
        "delivery.go",
        "x.attempt += tried.made()",
        "x.attempt = h.Count",
        ("W16", "W37"),
    ),
    Fault(
        "no-total",
        "A sealed record does not say over how many children it is.",
        "execution.go",
        "Total: len(x.order), Policy",
        "Total: 0, Policy",
        ("P06",),
    ),
    Fault(
        "nothing-borrowed",
        "A child of another step is taken for one's own.",
        "spawn.go",
        "if stored.ParentStep != t.ParentStep {",
        "if false {",
        ("P05",),
    ),
    Fault(
        "no-look-beside",
        "Who finishes a step does not look at those beside it.",
        "internal/runs/finish.go",
        "for _, step := range g.Beside(t.Step) {",
        "for _, step := range g.Beside(t.Step)[:0] {",
        ("J07",),
    ),
    Fault(
        "clean-again",
        "A later attempt counts all that is stored.",
        "execution.go",
        "if x.clean && !policy.Early {",
        "if !policy.Early {",
        ("P03", "P07"),
    ),
    Fault(
        "early-timer",
        "A timer's time is rounded down.",
        "internal/runs/engine.go",
        ".Add(time.Millisecond - time.Microsecond)",
        "",
        ("R01",),
    ),
    Fault(
        "places-not-repeated",
        "Later tasks of a run have lost its places.",
        "internal/wire/task.go",
        "{hdrPlaces, t.Places}, ",
        "",
        ("W35",),
    ),
    Fault(
        "places-not-told",
        "Children are not told of the places that their parent, and those above it, have.",
        "spawn.go",
        'strings.TrimSpace(p.Held + " " + p.Places)',
        'strings.TrimSpace("")',
        ("P01", "M06"),
    ),
    Fault(
        "never-gone",
        "Who gives places back does not store that it has gone.",
        "internal/runs/finish.go",
        'o.Store(&nats.Msg{Subject: o.Of("gone", t.Root, who)})',
        "",
        ("L01", "L03"),
    ),
    Fault(
        "nobody-looks-behind",
        "Nobody is asked to look who is next.",
        "internal/runs/finish.go",
        'o.Store(&nats.Msg{Subject: o.Of("in.limit", place)})',
        "",
        ("L01", "L03", "M07"),
    ),
    Fault(
        "limits-unheeded",
        "A step that is limited runs as any other.",
        "delivery.go",
        "if slices.Contains(graph.Limited, t.Step) {",
        "if slices.Contains(graph.Limited, t.Step+t.Run) {",
        ("L02",),
    ),
    Fault(
        "admits-all",
        "A task of _admit begins its run.",
        "delivery.go",
        "\tif !graph.Has(t.Step) {\n",
        "\tif t.Step == wire.Admit {\n\t\to.Publish(t.At(graph.Behind(wire.Start)[0]))\n\t\treturn\n\t}\n\tif !graph.Has(t.Step) {\n",
        ("L04",),
    ),
    Fault(
        "key-without-digest",
        "A key with another input is taken for the same.",
        "internal/wire/task.go",
        '\tif t.Digest != "" {\n\t\tid += ',
        "\tif false {\n\t\tid += ",
        ("T01",),
    ),
)


def build(fault: Fault, scratch: Path) -> Path:
    """Build the kit with a fault."""
    file = SDK / fault.file
    text = file.read_text()
    if text.count(fault.right) != 1:
        raise SystemExit(f"{fault.name}: its text is in {fault.file} {text.count(fault.right)} times, not once")
    wrong = scratch / f"{fault.name}.go"
    wrong.write_text(text.replace(fault.right, fault.wrong))
    overlay = scratch / f"{fault.name}.json"
    overlay.write_text(json.dumps({"Replace": {str(file): str(wrong)}}))
    kit = scratch / fault.name
    subprocess.run(["go", "build", "-overlay", overlay, "-o", kit, "./conformance/kit"], cwd=SDK, check=True)
    return kit


async def caught(fault: Fault, kit: Path, gate: asyncio.Semaphore) -> bool:
    """Play the cases of a fault, and tell whether all have caught it."""
    async with gate:
        results = await play([CASES[id] for id in fault.caught_by], [str(kit)], patience=PATIENCE)
    well = True
    for result in results:
        told = result.problem.partition("\n")[0]
        honest = not result.passed and not told.startswith(("NotReady", "Traceback"))
        print(f"{'caught' if honest else 'MISSED'} {fault.name:24} {result.case.id:5} {told[:120]}", flush=True)
        well = well and honest
    return well


async def main(names: list[str]) -> int:
    """Play faults, all without names; 1 if any is not caught."""
    faults = [fault for fault in FAULTS if not names or fault.name in names]
    with tempfile.TemporaryDirectory(prefix="jetflow-faults-") as scratch:
        kits = [build(fault, Path(scratch)) for fault in faults]
        gate = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(*(caught(fault, kit, gate) for fault, kit in zip(faults, kits, strict=True)))
    print(f"{len(faults)} planted faults, {sum(found)} caught")
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
