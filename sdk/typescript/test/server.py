"""A nats-server for tests: prints its URL, does what lines of its standard input say, and ends when that ends.

``restart`` kills it, and starts it again on its port with what it has stored. It answers by a line.
"""

from __future__ import annotations

import asyncio
import sys

from jetflow.server import NatsServer, ServerOptions


async def main(settings: dict[str, str]) -> None:
    payload = settings.pop("max_payload", None)
    options = ServerOptions(max_payload=None if payload is None else int(payload), **settings)
    async with NatsServer(options=options) as server:
        print(server.url, flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "restart":
                await server.kill()
                await server.start()
            print(line.strip(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(dict(argument.split("=", 1) for argument in sys.argv[1:])))
