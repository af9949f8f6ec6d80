"""From what is named on the command line to Workflow objects: `pkg.mod`, `pkg.mod:object`, `path/to/file.py:object`.

The working directory is importable, and so is the directory of a file, as if Python had been started with it.
"""

from __future__ import annotations

import difflib
import importlib
import linecache
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from jetflow.cli.options import UsageError
from jetflow.errors import JetflowError
from jetflow.worker.failures import own_frames
from jetflow.workflow import Workflow


class ImportFailed(JetflowError, ImportError):
    """A module that was named raised an error while it was imported."""


def load_workflows(targets: Iterable[str]) -> list[Workflow[Any, Any]]:
    """Return the workflows that ``targets`` name, each once.

    Raises:
        UsageError: nothing is named, or what is named does not exist or holds no workflow.
        ImportFailed: the module's own code raised an error.
    """
    found: dict[int, Workflow[Any, Any]] = {}
    for target in targets:
        found.update((id(workflow), workflow) for workflow in _load(target))
    if not found:
        raise UsageError("nothing to run: name a module, pkg.mod, or a workflow in it, pkg.mod:flow")
    return list(found.values())


def directory_of(target: str) -> Path:
    """Return the directory that ``target`` is imported from."""
    place, _ = _split(target)
    return _root_and_name(Path(place))[0] if place.endswith(".py") else Path.cwd()


def _load(target: str) -> list[Workflow[Any, Any]]:
    place, path = _split(target)
    if not place or (place.startswith(".") and not place.endswith(".py")):
        raise UsageError(f"{target!r} names no module: use pkg.mod, pkg.mod:flow or path/to/file.py:flow")
    _importable(Path.cwd())
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place)
    here: dict[str, Workflow[Any, Any]] = {
        name: value for name, value in vars(module).items() if isinstance(value, Workflow)
    }
    if not path:
        if not here:
            raise UsageError(f"module {place!r} has no Workflow object: declare one, or name another module")
        return list(here.values())
    value: Any = module
    for name in path.split("."):
        if not hasattr(value, name):
            raise UsageError(f"module {place!r} has no {path!r}{_hint(path, here)}")
        value = getattr(value, name)
    if not isinstance(value, Workflow):
        raise UsageError(f"{target!r} is a {type(value).__name__}, not a Workflow{_hint(path, here)}")
    return [value]


def _split(target: str) -> tuple[str, str]:
    """Return the module or file, and the object in it or "". The colon of a Windows drive is no separator."""
    place, colon, path = target.rpartition(":")
    return (place, path) if colon and "/" not in path and "\\" not in path else (target, "")


def _hint(name: str, workflows: Iterable[str]) -> str:
    names = list(workflows)
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _module_of_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}")
    root, name = _root_and_name(file)
    _importable(root)
    module = _module(name)
    if module.__file__ is None or not file.samefile(module.__file__):
        raise UsageError(f"{str(file)!r} is hidden by another module named {name!r} ({module.__file__}): rename it")
    return module


def _root_and_name(file: Path) -> tuple[Path, str]:
    """Return the directory above the file's outermost package, and the module's dotted name from there."""
    file = file.resolve()
    parts = [] if file.stem == "__init__" else [file.stem]
    root = file.parent
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {name!r} (looked in {Path.cwd()}, too)") from None
        _fail(name, error)
    except (Exception, SystemExit) as error:
        _fail(name, error)


def _fail(name: str, error: BaseException) -> NoReturn:
    """Say what a module's import raised, and on which lines of the user's code: the last one is where it went wrong."""
    places = [(frame.tb_frame.f_code.co_filename, frame.tb_lineno) for frame in own_frames(error)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        places.append((error.filename, error.lineno or 1))
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    text = f"cannot import {name!r}: {type(error).__name__}{said and f': {said}'}"
    if places:
        text += f" ({places[-1][0]}:{places[-1][1]})"
    if len(places) > 1:
        text += "".join(f"\n  {file}:{line}: {linecache.getline(file, line).strip()}" for file, line in places)
    raise ImportFailed(text) from error
