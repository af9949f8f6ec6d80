"""The smallest whole program: a workflow, a worker, a trigger.

Runs on the server that NATS_URL names, or else on a nats-server of its own.
"""

import asyncio
import os
from contextlib import AsyncExitStack

import msgspec

import jetflow
from jetflow import Worker, workflow


class Person(msgspec.Struct):
    name: str


@workflow("hello")
async def hello(person: Person) -> str:
    return f"Hello, {person.name}!"


async def main() -> None:
    async with AsyncExitStack() as stack:
        url = os.environ.get("NATS_URL") or (await stack.enter_async_context(jetflow.local_server())).url
        await stack.enter_async_context(Worker([hello], server=url))
        client = await stack.enter_async_context(jetflow.connect(url))
        run = await client.trigger(hello, Person("world"))
        print(await run.result(timeout=30))


if __name__ == "__main__":
    asyncio.run(main())
