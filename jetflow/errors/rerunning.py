"""Errors of runs that are asked to be run again."""

from __future__ import annotations

from jetflow.errors.root import JetflowError


class RunNotEnded(JetflowError, ValueError):
    """A run cannot be run again: it goes on, or has not begun."""

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run} has not ended, and cannot be run again: wait for its end, or cancel it")
        self.run_id = run


class NothingToRerun(JetflowError, ValueError):
    """A run has succeeded: there is nothing of it that has failed."""

    def __init__(self, run: str) -> None:
        super().__init__(
            f"run {run} has succeeded, and nothing of it is to be run again: only='all' runs all of it, and from_step= "
            "a step and what comes after it"
        )
        self.run_id = run


class AlreadyRerun(JetflowError, ValueError):
    """A run was run again already, of something else, or its rerun was. ``newest`` is the run to look at."""

    def __init__(self, run: str, newest: str) -> None:
        super().__init__(f"run {run} was run again already, and the newest of these is {newest}: run that one again")
        self.run_id = run
        self.newest = newest


class InputLost(JetflowError, LookupError):
    """A run cannot be run again: its input is not stored any more."""

    def __init__(self, run: str, why: str) -> None:
        super().__init__(f"run {run} cannot be run again, for its input is lost ({why}): trigger another")
        self.run_id = run
