"""Where a process finds the workflows whose steps it runs: by import, as multiprocessing's spawned children do.

A program that was started as a script or by ``-m`` is imported under the name ``__mp_main__``, so that what stands
behind ``if __name__ == "__main__":`` is not run again.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import msgspec

from jetflow.errors import InvalidDeclaration
from jetflow.step import Step
from jetflow.workflow import Workflow

_MAIN: Final = "__main__"
_IMPORTED_AS: Final = "__mp_main__"

_importing = False


class Place(msgspec.Struct, frozen=True):
    """The name of a module, and by which name it holds a workflow; and the steps of it that run in processes."""

    workflow: str
    module: str
    name: str
    steps: list[str]


class Program(msgspec.Struct, frozen=True):
    """How the worker's own program was started: by the name of a module, or as a file."""

    module: str = ""
    file: str = ""


def places_of(workflows: Iterable[Workflow[Any, Any]]) -> list[Place]:
    """Return where the workflows are found that have steps in processes; nothing, if none has.

    Raises:
        InvalidDeclaration: a workflow is bound to no name of a module, or in a program that cannot be imported.
    """
    return [_place_of(workflow, steps) for workflow in workflows if (steps := _steps_in_processes(workflow))]


def program_of(places: Iterable[Place]) -> Program | None:
    """Return how a process imports the worker's own program, if it holds one of the workflows."""
    if all(place.module != _MAIN for place in places):
        return None
    main = sys.modules[_MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return Program(module=spec.name)
    return Program(file=str(Path(main.__file__ or "").resolve()))


def _steps_in_processes(workflow: Workflow[Any, Any]) -> list[str]:
    return [step.name for step in workflow.steps.values() if step.in_process]


def _place_of(workflow: Workflow[Any, Any], steps: list[str]) -> Place:
    first = getattr(workflow.steps[steps[0]].function, "__module__", "")
    for module in dict.fromkeys([first, *sys.modules]):  # most often it stands beside its function
        names: dict[str, Any] = getattr(sys.modules.get(module), "__dict__", {})
        for name, value in list(names.items()):
            if value is workflow:
                _check_importable(workflow, sys.modules[module])
                return Place(workflow.name, module, name, steps)
    raise InvalidDeclaration(
        f"workflow {workflow.name!r} has steps that run in processes, which find it by import, and no module has a "
        "name for it: declare it at the top level of a module"
    )


def _check_importable(workflow: Workflow[Any, Any], module: ModuleType) -> None:
    if module.__name__ != _MAIN or getattr(module, "__spec__", None) is not None:
        return
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        raise InvalidDeclaration(
            f"workflow {workflow.name!r} has steps that run in processes, which find it by import, and it is declared "
            "in a program that has no file: write it to a module"
        )


# --- in the process


def found(places: Iterable[Place], program: Program | None) -> dict[tuple[str, str], tuple[Any, Step[..., Any, Any]]]:
    """Import the modules, and return the workflows with their steps in processes by the names of both.

    Raises:
        InvalidDeclaration: one is not there.
    """
    global _importing  # noqa: PLW0603 - it is about this process
    _importing = True
    try:
        if program is not None:
            _import_program(program)
        return {
            (place.workflow, step): _found(place, importlib.import_module(place.module), step)
            for place in places
            for step in place.steps
        }
    finally:
        _importing = False


def check_not_importing() -> None:
    """Refuse to start a worker while a process of another one imports the code.

    Raises:
        RuntimeError: that is so.
    """
    if _importing:
        raise RuntimeError(
            "a worker is started by the import of the module that declares its workflows, which the processes that its "
            'steps run in import, too: start it behind if __name__ == "__main__":'
        )


def _found(place: Place, module: ModuleType, step: str) -> tuple[Any, Step[..., Any, Any]]:
    workflow: Any = getattr(module, place.name, None)
    found = workflow.find_step(step) if isinstance(workflow, Workflow) else None
    if found is None or not found.in_process:
        raise InvalidDeclaration(
            f"step {step!r} of workflow {place.workflow!r} is not there when module {place.module!r} is imported: "
            "declare it at the top level of the module, and nowhere else"
        )
    _ = workflow.graph  # which settles the types
    return cast("Workflow[Any, Any]", workflow), found


def _import_program(program: Program) -> None:
    module = ModuleType(_IMPORTED_AS)
    if program.module:
        names = runpy.run_module(program.module, run_name=_IMPORTED_AS, alter_sys=True)
    else:
        names = runpy.run_path(program.file, run_name=_IMPORTED_AS)
    vars(module).update(names)
    sys.modules[_MAIN] = sys.modules[_IMPORTED_AS] = module
