"""What a forked child has of its parent, and must not use: signals, connections, the pipe of an embedded server.

A step may fork: by ``os.fork``, by multiprocessing, by a process pool. The child has a copy of all descriptors. A
signal that it gets would be written to the parent's event loop; a line that it sends would stand amid the parent's; and
as long as it lives, the broker would take the connection of a parent that has died for alive.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_HANDLED_BY_LOOPS: Final = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


_left_behind: Final[WeakKeyDictionary[Any, Callable[[Any], None]]] = WeakKeyDictionary()
_generation = 0
_forking = threading.local()


def generation() -> int:
    """Return a number that is another one in a forked child."""
    return _generation


def is_child(born: int) -> bool:
    """Tell whether this process was forked from one in which the generation was ``born``."""
    return born != _generation


def in_child(one: T, leave: Callable[[T], None]) -> None:
    """Call ``leave`` in each child that is forked while ``one`` lives. It must not wait for anything."""
    _left_behind[one] = leave


def close_here(descriptor: int) -> None:
    """Close a descriptor in a child. Its number stays taken: who thinks to own it may close it again."""
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)


def end_child() -> None:
    """End a child that comes back to where only its parent goes on."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _before_fork() -> None:
    # What the child gets before its handlers are its own waits until they are.
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_BY_LOOPS if _left_behind else [])


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _in_child() -> None:
    global _generation  # noqa: PLW0603 - it is about this process
    _generation += 1
    if _left_behind:
        if signal.set_wakeup_fd(-1) != -1:  # an event loop handles signals, and they would go to the parent's
            for number in _HANDLED_BY_LOOPS:
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for one, leave in list(_left_behind.items()):
            leave(one)
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
