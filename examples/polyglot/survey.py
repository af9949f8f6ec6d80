"""Survey this Python's standard library in three languages: a parent in Python, children in Go and in TypeScript.

Each file has two child runs: `lines`, in Go, takes its digest, and `words`, in TypeScript, counts its words. Then this
process does both in a plain loop, and both reports must be the same bytes. `make polyglot` builds the workers and runs
this. It uses the server that NATS_URL names, or else a nats-server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

import jetflow
from jetflow import Context, Worker, Workflow

HERE: Final = Path(__file__).parent
WORKERS: Final = {"Go": [HERE / "go/build/worker"], "TypeScript": ["node", HERE / "typescript/build/worker.js"]}
NAMESPACE: Final = "polyglot"
WORD: Final = re.compile(rb"[a-z]{4,}")
TOP: Final = 10


class Measured(msgspec.Struct):
    """What a `lines` child returns."""

    lines: int
    sha256: str


class File(msgspec.Struct):
    name: str
    lines: int
    sha256: str
    words: int


class Report(msgspec.Struct):
    files: list[File]
    top_words: list[tuple[str, int]]


class Library(msgspec.Struct):
    """A directory, and the files of it that are surveyed."""

    root: str
    names: list[str]


# --- the parent --------------------------------------------------------------------------------------------------

survey = Workflow("survey", input=Library, output=Report)


@survey.step
async def scatter(library: Library, ctx: Context) -> int:
    """Spawn children by the names of their workflows: no code of theirs is here."""
    paths = {f"{library.root}/{name}": name for name in library.names}
    of_go = await ctx.spawn_workflows("lines", paths, key=lambda path: paths[path])
    of_typescript = await ctx.spawn_workflows("words", paths, key=lambda path: paths[path])
    return len(of_go) + len(of_typescript)


@survey.step(after=[scatter])
async def gather(library: Library, ctx: Context) -> Report:
    """Read what the children returned. They ended in any order."""
    measured: dict[str, Measured] = {}
    counted: dict[str, dict[str, int]] = {}
    async for child in ctx.children(scatter):
        assert child.key is not None
        if child.workflow == "lines":
            measured[child.key] = msgspec.convert(child.output, Measured)
        else:
            counted[child.key] = child.output
    return report(library, measured, counted)


def report(library: Library, measured: dict[str, Measured], counted: dict[str, dict[str, int]]) -> Report:
    words = Counter[str]()
    files: list[File] = []
    for name in library.names:
        words.update(counted[name])
        files.append(File(name, measured[name].lines, measured[name].sha256, sum(counted[name].values())))
    return Report(files, sorted(words.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP])


# --- the same in one process -------------------------------------------------------------------------------------


def survey_alone(library: Library) -> Report:
    measured: dict[str, Measured] = {}
    counted: dict[str, dict[str, int]] = {}
    for name in library.names:
        text = Path(library.root, name).read_bytes()
        measured[name] = Measured(text.count(b"\n"), hashlib.sha256(text).hexdigest())
        counted[name] = Counter(word.decode() for word in WORD.findall(text.lower()))
    return report(library, measured, counted)


# --- the program -------------------------------------------------------------------------------------------------


def standard_library(limit: int | None) -> Library:
    root = Path(sysconfig.get_path("stdlib"))
    found = [file.relative_to(root) for file in root.rglob("*.py")]
    names = sorted(str(file) for file in found if not {"site-packages", "dist-packages", "test"} & set(file.parts))
    return Library(str(root), names[:: max(1, len(names) // limit)][:limit] if limit else names)


@asynccontextmanager
async def worker(language: str, url: str) -> AsyncGenerator[None]:
    """Have a worker process of another language. It stops when its standard input ends."""
    process = await asyncio.create_subprocess_exec(
        *WORKERS[language],
        env=os.environ | {"NATS_URL": url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this program, which then stops its workers
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the {language} worker ended with {await process.wait()} before it was ready")
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def main(library: Library) -> int:
    async with AsyncExitStack() as stack:
        url = os.environ.get("NATS_URL") or (await stack.enter_async_context(jetflow.local_server())).url
        await stack.enter_async_context(Worker([survey], server=url, namespace=NAMESPACE))
        for language in WORKERS:
            await stack.enter_async_context(worker(language, url))
        client = await stack.enter_async_context(jetflow.connect(url, namespace=NAMESPACE))
        print(f"{library.root}: {len(library.names):,} files, a Go and a TypeScript child for each", flush=True)
        began = time.monotonic()
        run = await client.trigger(survey, library)
        found = await run.result()
        took = time.monotonic() - began
    show(found)
    count = 2 * len(library.names)
    print(f"{count:,} child runs in {took:.2f} s: {count / took:,.0f} children per second")
    if encoded(found) != encoded(survey_alone(library)):
        print("FAILED: the report of a plain loop in one process is another one")
        return 1
    print("verified: identical to the result of a plain loop in one process, byte for byte")
    return 0


def show(found: Report) -> None:
    for word, uses in found.top_words:
        print(f"{word:16}{uses:9,}")
    lines, words = sum(file.lines for file in found.files), sum(file.words for file in found.files)
    print(f"{lines:,} lines by Go, {words:,} words by TypeScript, {len(encoded(found)):,} bytes of report by Python")


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="survey the standard library with children in Go and TypeScript")
    parser.add_argument("--limit", type=int, help="take so many files, spread over the tree (default: all)")
    given = parser.parse_args()
    if not all(Path(command[-1]).exists() for command in WORKERS.values()):
        sys.exit("the workers are not built: run `make polyglot` in the root of the repository")
    try:
        sys.exit(asyncio.run(main(standard_library(given.limit))))
    except KeyboardInterrupt:
        sys.exit("interrupted: the workers and the server are stopped")
