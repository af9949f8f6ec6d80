"""The window of a stream of children: how many more may be spawned, and what a retry goes on from.

*Child number i of a stream may be spawned once i + 1 - size of those before it have ended.* What has ended stays so:
whoever was once allowed to spawn a child is allowed to for ever. So there is no lock, and a worker that was cut off and
its successor, who take the same inputs, never have more than ``size`` open between them.

A `Page` says: the first ``spawned`` children are stored, and all of them but the ``open`` ones have ended. That is true
for ever, too. So pages of several attempts may stand beside one another, and any of them is a place to go on from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jetflow.engine.joins import split_ids
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import NULL
from jetflow.errors import InvalidInput

LARGEST: Final = 100_000
"""Children that a window may have: who spawns holds that many ids."""

PAGE: Final = 500
"""Children between two pages, at least: as many may be spawned again, and found, after a crash."""

FAILURES: Final = 20
"""Children that failed whose ids are kept, the first."""

Stopped: TypeAlias = Literal["", "source", "budget", "failure"]
"""Why a stream spawns nothing more: its source has ended, its tree is full, a child has failed; ``""``: it goes on."""


class AskedStream(msgspec.Struct, frozen=True):
    """What is asked of a stream: how many children may be open, and how many descendants its tree may have.

    ``level`` is how urgent its children are; ``tells`` says that they are told metadata besides their parent's.
    """

    name: str
    window: int
    budget: int | None = None
    policy: JoinPolicy | None = None
    keyed: bool = False
    folds: bool = False
    level: str | None = None
    tells: bool = False


class Page(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far a stream was: the first ``spawned`` children are stored, and all but the ``open`` ones have ended.

    ``state`` is what the outputs of those that ended well were folded to, in a stream that folds them.
    ``last`` is the id of the last of them, ``position`` what its source is told to go on behind, ``failed`` how many
    did not end well, ``failures`` the first of those. ``open`` holds ids, 16 bytes each. A page that is too large for a
    message is kept as a value, and ``whole`` is its reference.
    """

    spawned: int = 0
    last: str = ""
    position: msgspec.Raw = NULL
    open: bytes = b""
    failed: int = 0
    failures: tuple[str, ...] = ()
    state: msgspec.Raw = NULL
    stopped: Stopped = ""
    whole: str | None = None


class Window:
    """The children of a stream that are open, and the numbers of those that are not.

    Equal inputs are one child, which takes one place, and is counted as often as it was spawned.
    """

    def __init__(self, size: int, page: Page) -> None:
        self.size = size
        self.spawned: int = page.spawned
        self.last: str = page.last
        self.position: msgspec.Raw = page.position
        self.failed: int = page.failed
        self.failures: list[str] = list(page.failures)
        self.stopped: Stopped = page.stopped
        self.state: msgspec.Raw = page.state
        self.open: dict[bytes, int] = {}
        for child in split_ids(page.open):
            self.open[child] = self.open.get(child, 0) + 1
        self._paged = page.spawned

    @property
    def room(self) -> int:
        """How many more may be spawned now."""
        return max(0, self.size - len(self.open))

    def spawn(self, children: Iterable[bytes]) -> None:
        """Note children that are about to be spawned."""
        for child in children:
            self.open[child] = self.open.get(child, 0) + 1
            self.spawned += 1
            self.last = child.hex()

    def end(self, child: bytes, *, well: bool) -> int:
        """Note that a child has ended, and return how often it was spawned; 0 for one that is not open."""
        times = self.open.pop(child, 0)
        if not well and times:
            self.failed += times
            if len(self.failures) < FAILURES:
                self.failures.append(child.hex())
        return times

    @property
    def is_page_due(self) -> bool:
        """Whether so many were spawned since the last page that another is worth it."""
        return self.spawned - self._paged >= max(PAGE, self.size)

    def page(self) -> Page:
        """Return how far the stream is. All that were spawned have to be stored."""
        self._paged = self.spawned
        return Page(
            spawned=self.spawned,
            last=self.last,
            position=self.position,
            open=b"".join(child * times for child, times in self.open.items()),
            failed=self.failed,
            failures=tuple(self.failures),
            state=self.state,
            stopped=self.stopped,
        )


class StreamNames:
    """Under which names one body's streams keep their pages: told apart by what they spawn, and by their order."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    def name(self, workflow: str, given: str | None) -> str:
        """Return the name of the next stream of a body."""
        if given is not None:
            return f"_stream-named-{given}"
        self._asked[workflow] = number = self._asked.get(workflow, 0) + 1
        return f"_stream-{workflow}-{number}"


def checked_stream(
    name: str,
    window: Any,
    budget: Any,
    policy: Any,
    *,
    keyed: bool,
    folds: bool = False,
    level: str | None = None,
    tells: bool = False,
) -> AskedStream:
    """Return what is asked of a stream, if it can be done.

    Raises:
        InvalidInput: it cannot.
    """
    if type(window) is not int or not 1 <= window <= LARGEST:
        raise InvalidInput(f"the window of a stream is a whole number from 1 to {LARGEST:,}, and not {window!r}")
    if budget is not None and (type(budget) is not int or budget < 0):
        raise InvalidInput(f"the budget of a stream is a whole number of runs from 0 on, and not {budget!r}")
    if policy is not None and not isinstance(policy, JoinPolicy):
        raise InvalidInput(f"the policy of a stream is a JoinPolicy, and not {policy!r}")
    if policy is not None and (policy.quorum is not None or policy.seconds is not None):
        raise InvalidInput(
            "a stream has no quorum and no end in time, for nobody knows how many children it will have: "
            "its policy is all_succeed(), fail_fast(), collect() or tolerate()"
        )
    return AskedStream(name, window, budget, policy, keyed, folds, level, tells)
