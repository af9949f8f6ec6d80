"""A nats-server for tests: prints its URL, and ends when its standard input ends."""

from __future__ import annotations

import asyncio
import sys

import jetflow


async def main() -> None:
    async with jetflow.local_server() as server:
        print(server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
