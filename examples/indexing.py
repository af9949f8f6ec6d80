"""Indexing a tree of Python files: the workflows of 02 and 03, and the same job in one process.

- ``index-tree``: its step ``scan`` spawns one ``index-package`` a directory and returns. It is complete when they are
  all done; then its step ``report`` reads ``ctx.children(scan)``.
- ``index-package``: spawns one ``index-file`` a file, and joins them inside the step.
- ``index-file``: parses one file: its words, the modules that it imports, its functions.

Parsing holds the GIL, so it is worker processes, and not threads, that put more cores to work.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from jetflow import Context, Retry, Workflow, workflow

SKIPPED = {"__pycache__", "site-packages", "dist-packages"}
TOP = 10

WORD = re.compile(rb"[a-z]{4,}")

INNER = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement holds others."""

warnings.simplefilter("ignore", SyntaxWarning)  # the standard library holds doubtful source on purpose

# --- what travels ----------------------------------------------------------------------------------------------


class Tree(msgspec.Struct):
    """A directory, and how many of its files to take; None takes all."""

    root: str
    limit: int | None = None


class Package(msgspec.Struct):
    """The files of one directory; ``name`` is its path below the root."""

    root: str
    name: str
    files: list[str]


class Source(msgspec.Struct):
    root: str
    package: str
    file: str


class Function(msgspec.Struct):
    lines: int
    name: str


class FileIndex(msgspec.Struct):
    """``longest`` are its longest functions, the longest first. A file that is no Python has words only."""

    is_python: bool
    words: dict[str, int]
    imports: list[str]
    functions: int
    longest: list[Function]


class PackageIndex(msgspec.Struct):
    """``importers`` counts, for each module, the files that import it."""

    files: int
    broken: int
    words: dict[str, int]
    importers: dict[str, int]
    functions: int
    longest: list[Function]


class Report(msgspec.Struct):
    """``broken`` counts the files that are no Python."""

    packages: int
    files: int
    broken: int
    words: int
    imports: int
    functions: int
    top_words: list[tuple[str, int]]
    top_modules: list[tuple[str, int]]
    longest: list[Function]


# --- the workflows ---------------------------------------------------------------------------------------------

# A worker that is lost costs each of its tasks an attempt, and 03 kills some.
PATIENT = Retry(attempts=10)


@workflow("index-file", retry=PATIENT)
def index_file(source: Source, ctx: Context) -> FileIndex:
    note(ctx, "index-file")
    time.sleep(ctx.metadata.get("pause", 0))
    return read(source)


@workflow("index-package", retry=PATIENT)
async def index_package(package: Package, ctx: Context) -> PackageIndex:
    note(ctx, "index-package")
    files = await ctx.spawn_workflows(index_file, sources(package), key=lambda source: source.file)
    return merge(await ctx.join(files))


index_tree = Workflow("index-tree", input=Tree, output=Report, retry=PATIENT)


@index_tree.step
async def scan(tree: Tree, ctx: Context) -> int:
    note(ctx, "scan")
    spawned = await ctx.spawn_workflows(index_package, packages(tree), key=lambda package: package.name)
    return len(spawned)


@index_tree.step(after=[scan])
async def report(tree: Tree, ctx: Context) -> Report:
    note(ctx, "report")
    return summary([child.output async for child in ctx.children(scan, index_package)])


WORKFLOWS = [index_tree, index_package, index_file]


def note(ctx: Context, step: str) -> None:
    """Leave a line for each body that begins, if the run's trigger asked for it."""
    if directory := ctx.metadata.get("log"):
        os.write(_log(directory), f"{ctx.run_id} {step} {ctx.attempt}\n".encode())


@functools.cache
def _log(directory: str) -> int:
    return os.open(f"{directory}/{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


# --- the same in one process -----------------------------------------------------------------------------------


def index_alone(tree: Tree, after_file: Callable[[], None] = lambda: None) -> Report:
    """Index a tree in a plain loop, and call ``after_file`` behind each file."""

    def files(package: Package) -> Iterator[FileIndex]:
        for source in sources(package):
            yield read(source)
            after_file()

    return summary([merge(files(package)) for package in packages(tree)])


def is_identical(found: Report, alone: Report) -> bool:
    """Compare two reports byte for byte, and print what differs."""
    if canonical(found) == canonical(alone):
        return True
    for field in Report.__struct_fields__:
        if getattr(found, field) != getattr(alone, field):
            print(f"DIFFERENT {field}:\n  workers: {getattr(found, field)}\n  alone:   {getattr(alone, field)}")
    return False


def canonical(report: Report) -> bytes:
    return msgspec.json.encode(report, order="deterministic")


# --- plain functions -------------------------------------------------------------------------------------------


def standard_library(limit: int | None = None) -> Tree:
    return Tree(sysconfig.get_path("stdlib"), limit)


def packages(tree: Tree) -> list[Package]:
    """Return the directories of a tree with the Python files in each; tests are taken, installed packages are not."""
    root = Path(tree.root)
    files: list[Path] = []
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED]
        files += [Path(directory, name) for name in names if name.endswith(".py")]
    files.sort()
    if tree.limit is not None:
        files = files[:: max(1, len(files) // tree.limit)][: tree.limit]
    by_package: dict[str, list[str]] = {}
    for file in files:
        by_package.setdefault(file.parent.relative_to(root).as_posix(), []).append(file.name)
    return [Package(tree.root, name, files) for name, files in by_package.items()]


def sources(package: Package) -> Iterator[Source]:
    return (Source(package.root, package.name, file) for file in package.files)


def read(source: Source) -> FileIndex:
    """Index a file. The standard library holds files that are no valid Python, or no valid text, on purpose."""
    text = Path(source.root, source.package, source.file).read_bytes()
    words = Counter(word.decode() for word in WORD.findall(text.lower()))
    try:
        parsed = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return FileIndex(False, words, [], 0, [])
    modules: set[str] = set()
    functions: list[Function] = []
    for statement in statements(parsed):
        if isinstance(statement, ast.Import):
            modules.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            modules.update(origins(statement, source.package))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (statement.end_lineno or 0) - statement.lineno + 1
            functions.append(Function(lines, f"{source.package}/{source.file}:{statement.name}"))
    return FileIndex(True, words, sorted(modules), len(functions), longest(functions))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node. Expressions, most of a tree, are left out."""
    for inner in INNER:
        for statement in getattr(node, inner, ()):
            yield statement
            yield from statements(statement)


def origins(node: ast.ImportFrom, package: str) -> list[str]:
    """Return the modules that a ``from`` statement names, with the leading dots replaced by the package."""
    if not node.level:
        return [node.module or ""]
    parents = [part for part in package.split("/") if part != "."]
    parents = parents[: len(parents) - node.level + 1]
    names = [node.module] if node.module else [alias.name for alias in node.names]
    return [".".join([*parents, name]) for name in names]


def merge(files: Iterable[FileIndex]) -> PackageIndex:
    merged = PackageIndex(0, 0, {}, {}, 0, [])
    words, importers, functions = Counter[str](), Counter[str](), list[Function]()
    for file in files:
        merged.files += 1
        merged.broken += not file.is_python
        merged.functions += file.functions
        words.update(file.words)
        importers.update(file.imports)
        functions += file.longest
    merged.words, merged.importers, merged.longest = words, importers, longest(functions)
    return merged


def summary(indexes: list[PackageIndex]) -> Report:
    words, importers = Counter[str](), Counter[str]()
    for index in indexes:
        words.update(index.words)
        importers.update(index.importers)
    return Report(
        packages=len(indexes),
        files=sum(index.files for index in indexes),
        broken=sum(index.broken for index in indexes),
        words=words.total(),
        imports=importers.total(),
        functions=sum(index.functions for index in indexes),
        top_words=top(words),
        top_modules=top(importers),
        longest=longest(function for index in indexes for function in index.longest),
    )


def top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP]


def longest(functions: Iterable[Function]) -> list[Function]:
    return sorted(functions, key=lambda function: (-function.lines, function.name))[:TOP]
