"""The laboratory of a case: a server, the tested process behind its proxy, and what the other side can do."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from conformance.broker import Broker
from conformance.expected import Expected, Run
from conformance.process import Tested
from conformance.proxy import Proxy
from conformance.wire import NONE, SEAL, Event, Names, canonical, digest, id_sum, new_id
from jetflow.server import NatsServer

NAMESPACE: Final = "conf"
REFERENCE: Final = "ref-"
WITHIN: Final = 15.0
"""Seconds within which what a case waits for must happen."""

SHOWN: Final = 60
"""Events of a log that a report shows at most."""


class Failed(Exception):
    """The tested process did not do what the case expects. The message has the log."""


class Lab:
    """One server with one tested process; several cases may share it, each with trees of its own.

    ``settings`` are environment variables of the process, beside those that every one gets.
    """

    def __init__(self, command: Sequence[str], *, patience: float = 1.0, prefix: str = "") -> None:
        self.command = command
        self.names = Names(NAMESPACE)
        self.prefix = prefix
        self.patience = patience
        self.server = NatsServer()
        self.broker: Broker
        self.proxy: Proxy
        self.tested: Tested
        self.other: Tested

    async def open(self, *, start: bool = True, **settings: str) -> None:
        """Start the server and the proxy, and the process too unless ``start`` is false."""
        await self.server.start()
        self.broker = await Broker.connect(self.server.url, self.names)
        self.proxy = Proxy(self.server.url, self.names)
        await self.proxy.start()
        if start:
            await self.start(**settings)

    async def start(self, **settings: str) -> None:
        """Start the tested process."""
        self.proxy.closed = False
        given = {
            "NATS_URL": self.proxy.url,
            "JETFLOW_NAMESPACE": NAMESPACE,
            "PREFIX": self.prefix,
            "SWEEP_EVERY": "600",
        }
        self.tested = Tested(self.command, given | settings)
        await self.tested.start()

    async def start_other(self) -> None:
        """Start jetflow's own kit beside the tested process, straight at the server; its names begin with ``ref-``."""
        settings = {
            "NATS_URL": self.server.url,
            "JETFLOW_NAMESPACE": NAMESPACE,
            "PREFIX": REFERENCE,
            "SWEEP_EVERY": "600",
        }
        self.other = Tested([sys.executable, "-m", "conformance.kit"], settings)
        await self.other.start()

    async def close(self) -> None:
        """End everything."""
        for name in ("tested", "other"):
            if hasattr(self, name):
                await getattr(self, name).kill()
        if hasattr(self, "proxy"):
            await self.proxy.stop()
        if hasattr(self, "broker"):
            await self.broker.close()
        await self.server.stop()

    # --- runs

    def of_kit(self, workflow: str) -> str:
        """Return the full name of a workflow of the kit."""
        return f"{self.prefix}{workflow}"

    async def parent(
        self, *, steps: Sequence[tuple[str, Sequence[str]]] = (), deep: bool = False, limited: Sequence[str] = ()
    ) -> Run:
        """Play a parent: a run at its first step that nobody but the driver runs.

        Without ``steps`` it is a graph of ``scatter`` and then ``sum``. With ``deep`` it is no root run. ``limited``
        steps have limits of their own.
        """
        workflow = f"raw-{new_id()[:8]}"
        graph = steps or [("scatter", []), ("sum", ["scatter"])]
        await self.declare(workflow, graph, limited)
        run = new_id()
        root, above, above_step = (new_id(), new_id(), "above") if deep else (run, NONE, NONE)
        first = next(name for name, after in graph if not after)
        made = Run(workflow, first, root, above, above_step, run)
        headers = {"Jf-Parent-Step": above_step, "Jf-Depth": "2" if deep else "0", "Jf-Version": "v1"}
        await self.store_task(made, {}, headers)
        return made

    async def declare(
        self,
        workflow: str,
        steps: Sequence[tuple[str, Sequence[str]]] = (("run", ()),),
        limited: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """Declare a workflow that nobody but the driver runs, in version v1."""
        nodes = [{"name": name, "after": list(after)} for name, after in steps]
        graph = {"workflow": workflow, "nodes": nodes} | ({"limited": list(limited)} if limited else {})
        await self.broker.store(self.subject("version", workflow=workflow, version="v1"), _json(graph))
        declaration = {"graph": graph, "version": "v1", **more}
        await self.broker.store(self.subject("workflow", workflow=workflow), _json(declaration))

    def child(self, parent: Run, workflow: str, step: str = "run") -> Run:
        """Return a child of a run, not spawned yet."""
        return Run(self.of_kit(workflow), step, parent.root, parent.run, parent.step, new_id())

    async def spawn(self, parent: Run, workflow: str, value: Any, *, step: str = "run", **headers: str) -> Run:
        """Spawn a child as a parent does. A header ``Jf-Eager`` is given as ``Jf_Eager``."""
        child = self.child(parent, workflow, step)
        await self.spawn_as(child, value, **headers)
        return child

    async def spawn_as(self, child: Run, value: Any, **headers: str) -> None:
        """Spawn a child whose id is known already."""
        await self.store_task(child, value, {"Jf-Parent-Step": child.parent_step, "Jf-Depth": "1"} | _named(headers))

    async def trigger(self, workflow: str, value: Any, *, step: str = "run", **headers: str) -> Run:
        """Start a root run of the kit as a client does that publishes the first task itself."""
        run = new_id()
        made = Run(self.of_kit(workflow), step, run, NONE, NONE, run)
        await self.store_task(made, value, {"Jf-Digest": digest(value)} | _named(headers))
        return made

    async def store_task(
        self, run: Run, value: Any, headers: Mapping[str, str], *, turn: int = 0, body: bytes | None = None
    ) -> None:
        """Store a task. ``body`` stands in for the value."""
        given = {"Nats-Msg-Id": f"{run.run}.{run.step}.{turn}.{new_id()[:4]}", **headers}
        subject = self.subject("task", **run.tokens, turn=turn)
        await self.broker.store(subject, canonical(value) if body is None else body, given)

    # --- what the other side stores

    def subject(self, kind: str, **fields: object) -> str:
        """Return a subject."""
        return self.names.subject(kind, **fields)

    async def end(self, run: Run, status: str = "succeeded", *, count: bool = True, **body: Any) -> None:
        """End a run as its worker does: mark, outcome, count."""
        error = {} if status == "succeeded" else {"error": {"type": "Raw", "message": "said the driver"}}
        record = {"status": status, "workflow": run.workflow, **error, **body}
        if status != "succeeded":
            await self.broker.store(self.subject("mark", **run.tokens, status=status))
        await self.broker.store(self.subject("run", **run.tokens), _json(record))
        if count and run.parent != NONE:
            await self.count(run)

    async def count(self, child: Run, by: int = 1) -> int:
        """Count in the join that a child belongs to."""
        return await self.broker.count(
            self.subject("count", root=child.root, run=child.parent, step=child.parent_step), by
        )

    async def seal(
        self, parent: Run, children: Sequence[Run], *, kind: str = "sealed", turn: int = 0, **more: Any
    ) -> None:
        """Seal (or park) a step over children as their parent does: store the JoinRecord, then count."""
        record = {
            "kind": kind,
            "turn": turn,
            "task": self.subject("task", **parent.tokens, turn=turn),
            "needed": len(children),
            "total": len(children) if kind == "sealed" else 0,
            "id_sum": id_sum(child.run for child in children),
            **more,
        }
        if "members" in more:
            record["id_sum"] = ""
        await self.broker.store(self.subject("join", **parent.tokens, turn=turn), _json(record))
        by = SEAL - max(0, record["needed"] - len(record.get("borrowed", [])))
        await self.broker.count(self.subject("count", **parent.tokens), by)

    async def cancel(self, root: str, run: str, body: bytes = b"") -> None:
        """Store the mark that a run is cancelled, and give the process the time to hear of it."""
        await self.broker.store(self.subject("cancel", root=root, run=run), body)
        await asyncio.sleep(0.2)

    def lost_before(self, part: str, times: int = 1) -> None:
        """Have tasks, by a part of their subject, delivered as if workers had been given them before and were lost."""
        self.proxy.lost[part] = times

    async def killed_at(self, point: Expected, doing: Awaitable[None], tree: Run) -> int:
        """Kill the process as it is about to send a message, and start it again.

        ``doing`` leads to that message. Returns the number of the first event of the new process.
        """

        async def strike(event: Event) -> bool:
            if not point.fits(event):
                return True
            self.proxy.sent_hooks.remove(strike)
            self.proxy.closed = True
            self.tested.strike()
            return False

        self.proxy.sent_hooks.append(strike)
        await doing
        await self.expect(tree, point)
        await self.tested.kill()
        began = self.now
        await self.start()
        return began

    # --- what is expected

    def log_of(self, *runs: Run | str) -> list[Event]:
        """Return what was said in trees, or on subjects that hold a text."""
        parts = [one.root if isinstance(one, Run) else one for one in runs]
        return [event for event in self.proxy.log if any(part in event.subject for part in parts)]

    async def expect(self, tree: Run | str, *expected: Expected, within: float = WITHIN, since: int = 0) -> list[Event]:
        """Wait until each message has been seen, and check that they first appeared in this order.

        ``since`` is the number of the event with which the log begins. Returns those first appearances.

        Raises:
            Failed: one is missing, or came too early.
        """
        until = monotonic() + within * self.patience
        while True:
            log = [event for event in self.log_of(tree) if event.number >= since]
            first = [next((event for event in log if one.fits(event)), None) for one in expected]
            if None not in first or monotonic() > until:
                break
            await self._more(until)
        for one, event in zip(expected, first, strict=True):
            if event is None:
                raise Failed(self.report(f"missing: {one}", tree, expected))
        found = [event for event in first if event is not None]
        for before, after, one, other in zip(found, found[1:], expected, expected[1:], strict=False):
            if before.number >= after.number:
                raise Failed(self.report(f"wrong order: {other}, before {one}", tree, expected))
        return found

    async def _more(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, min(until - monotonic(), 0.5))), self.proxy.grown:
                await self.proxy.grown.wait()

    @property
    def now(self) -> int:
        """The number that the next event will have."""
        return len(self.proxy.log)

    def seen(self, tree: Run | str, expected: Expected) -> list[Event]:
        """Return all messages of a kind up to now."""
        return [event for event in self.log_of(tree) if expected.fits(event)]

    def never(self, tree: Run | str, *expected: Expected) -> None:
        """Check that no such message has been seen up to now.

        Raises:
            Failed: one has.
        """
        for one in expected:
            if self.seen(tree, one):
                raise Failed(self.report(f"there must be no {one}", tree))

    def check(self, holds: object, what: str, tree: Run | str = "") -> None:
        """Check anything else.

        Raises:
            Failed: it does not hold.
        """
        if not holds:
            raise Failed(self.report(what, tree))

    async def eventually(self, holds: Callable[[], Awaitable[object]], what: str, *, within: float = WITHIN) -> None:
        """Wait until something holds.

        Raises:
            Failed: it never does.
        """
        until = monotonic() + within * self.patience
        while not await holds():
            if monotonic() > until:
                raise Failed(what)
            await asyncio.sleep(0.05)

    # --- reports

    def report(self, what: str, tree: Run | str = "", expected: Sequence[Expected] = ()) -> str:
        """Return what went wrong with the log of a tree, ids shortened."""
        lines = [what]
        if expected:
            lines += ["expected in this order:", *(f"  {one}" for one in expected)]
        log = self.log_of(tree) if tree else []
        if log:
            began = log[0].at
            lines += ["seen (> sent, < received):", *(_line(event, began) for event in log[-SHOWN:])]
        if hasattr(self, "tested") and not self.tested.running:
            lines += ["the process has ended; the last it said:", *(f"  {line}" for line in self.tested.said)]
        return _short("\n".join(lines))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that were given as keywords by their names."""
    return {name.replace("_", "-"): text for name, text in headers.items()}


def _line(event: Event, began: float) -> str:
    subject = event.subject.replace(f"jf.{NAMESPACE}.", "").replace(f"$KV.jf_{NAMESPACE}_", "")
    subject = subject.removeprefix(f"{event.kind}.")
    headers = " ".join(f"{name}:{value[:60]}" for name, value in event.headers.items() if name != "traceparent")
    body = "" if event.kind in ("get", "list", "purge", "api") else event.body[:160].decode(errors="replace")
    count = f"#{event.delivery} " if event.delivery else ""
    text = f"{event.at - began:7.3f} {event.way} {event.kind:<10} {count}{subject} {headers} {body}"
    return f"  {text.rstrip()}"


def _short(text: str) -> str:
    """Return a text with every id cut to its first digits."""
    return re.sub(r"\b([0-9a-f]{6})[0-9a-f]{26}\b", r"\1", text)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


encode = _json
