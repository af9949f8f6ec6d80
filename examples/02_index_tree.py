"""Parse and index this Python's standard library: a child run a directory, which spawns a child run a file.

Two worker processes do it; then this process does the same in a plain loop, and both reports must be the same bytes.
``indexing.py`` has the workflows. Runs on the server that NATS_URL names, or else on a nats-server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time

import nats
from indexing import Report, Tree, index_alone, index_tree, is_identical, packages, standard_library
from processes import EXIT_INTERRUPTED, NAMESPACE, Descendants, Progress, in_background, server_url, workers

import jetflow

WORKERS = 2
SLOTS = 4


async def main(tree: Tree) -> int:
    directories = packages(tree)
    count = sum(len(directory.files) for directory in directories)
    total = count + len(directories)
    print(f"{tree.root}: {count:,} files in {len(directories)} directories; {WORKERS} worker processes", flush=True)
    async with (
        server_url() as url,
        workers(url, count=WORKERS, slots=SLOTS),
        await nats.connect(url) as connection,
        jetflow.connect(connection, namespace=NAMESPACE) as client,
    ):
        began = time.monotonic()
        run = await client.trigger(index_tree, tree)
        progress, descendants = Progress(total), Descendants(connection, run.id)
        async with in_background(run.result()) as result:
            while not result.done():
                progress.show(await descendants.ended())
                await asyncio.wait({result}, timeout=0.1)
            progress.end()
            took = time.monotonic() - began
            found, runs = await result, await descendants.ended()
    show(found)
    print(f"{runs:,} child runs ({found.files:,} files and {found.packages} directories) in {took:.2f} s:", end=" ")
    print(f"{runs / took:,.0f} children per second", flush=True)
    progress, began = Progress(count, "files are indexed by a plain loop"), time.monotonic()
    alone = index_alone(tree, progress.step)
    loop = time.monotonic() - began
    progress.end()
    if not is_identical(found, alone):
        return 1
    print("verified: identical to the result of a plain loop in one process, byte for byte")
    print(compared(loop, took))
    return 0


def compared(loop: float, took: float) -> str:
    """Tell which was faster, whichever it was. Both are seconds."""
    faster = f"{loop / took:.1f} times as fast" if took < loop else f"slower: it took {took / loop:.1f} times as long"
    return f"the plain loop took {loop:.2f} s, jetflow {took:.2f} s on {len(os.sched_getaffinity(0))} cores: {faster}"


def show(report: Report) -> None:
    print(f"{'words':27}{'modules, by files that import them':37}longest functions, in lines")
    words = [f"{word:16}{uses:9,}" for word, uses in report.top_words]
    modules = [f"{module:26}{importers:7,}" for module, importers in report.top_modules]
    functions = [f"{function.lines:5,}  {function.name}" for function in report.longest]
    for word, module, function in zip(words, modules, functions, strict=False):
        print(f"{word:27}{module:37}{function}")
    print(f"{report.words:,} words, {report.imports:,} imports and {report.functions:,} functions in all;", end=" ")
    print(f"{report.broken} files are no Python, on purpose")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="index the standard library with child workflows")
    parser.add_argument("--limit", type=int, help="take so many files, spread over the tree (default: all)")
    try:
        sys.exit(asyncio.run(main(standard_library(parser.parse_args().limit))))
    except KeyboardInterrupt:
        print("\ninterrupted: the workers and the server are stopped")
        sys.exit(EXIT_INTERRUPTED)
