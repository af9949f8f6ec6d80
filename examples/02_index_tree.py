"""Index the source of this Python's standard library: a child run a directory, which spawns a child run a file.

Two worker processes do it; then this process does the same alone, and both reports must be the same bytes.
``indexing.py`` has the workflows. Runs on the server that NATS_URL names, or else on a nats-server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from itertools import zip_longest

import nats
from indexing import Report, Tree, index_tree, is_identical, packages, standard_library
from processes import EXIT_INTERRUPTED, NAMESPACE, Descendants, Progress, in_background, server_url, workers

import jetflow

WORKERS = 2
SLOTS = 16


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
    if not is_identical(found, tree):
        return 1
    print("verified: identical to the single-process result")
    return 0


def show(report: Report) -> None:
    print(f"{'words':30}{'modules, by files that import them':30}")
    words = [f"{word:18}{uses:9,}" for word, uses in report.top_words]
    modules = [f"{module:26}{importers:7,}" for module, importers in report.top_modules]
    for left, right in zip_longest(words, modules, fillvalue=""):
        print(f"{left:30}{right}")
    print(f"{report.words:,} words and {report.imports:,} imports in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="index the standard library with child workflows")
    parser.add_argument("--limit", type=int, help="take so many files, spread over the tree (default: all)")
    try:
        sys.exit(asyncio.run(main(standard_library(parser.parse_args().limit))))
    except KeyboardInterrupt:
        print("\ninterrupted: the workers and the server are stopped")
        sys.exit(EXIT_INTERRUPTED)
