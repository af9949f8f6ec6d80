"""The driver's own connection: raw messages with nats-py, straight to the server."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client

from conformance.wire import Names


@dataclass(frozen=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body or b"null")


class RequestRefused(Exception):
    """The server did not do what the driver asked for: the driver, or the server's state, is not as it should be."""


class Broker:
    """Publishes and reads for the driver."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names

    @classmethod
    async def connect(cls, url: str, names: Names) -> Broker:
        """Connect to a server."""
        return cls(await nats.connect(url, name="conformance driver"), names)

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()

    async def api(self, operation: str, request: Any = None) -> dict[str, Any]:
        """Ask the JetStream API, and return the answer, also if it is an error."""
        body = b"" if request is None else json.dumps(request).encode()
        return json.loads((await self._client.request(f"$JS.API.{operation}", body, timeout=10)).data)

    async def publish(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Publish to a stream, and return the PubAck, also if it is an error."""
        return json.loads((await self._client.request(subject, body, timeout=10, headers=headers)).data)

    async def store(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        """Publish to a stream, and return the message's place in it.

        Raises:
            RequestRefused: it is not stored.
        """
        answer = await self.publish(subject, body, headers)
        if "error" in answer or answer.get("duplicate"):
            raise RequestRefused(f"{subject}: {answer}")
        return answer["seq"]

    async def count(self, subject: str, by: int) -> int:
        """Add to a counter, and return its new value."""
        return int((await self.publish(subject, headers={"Nats-Incr": f"{by:+d}"}))["val"])

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message on a subject, as the leader has it."""
        answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        if "error" in answer:
            return None
        message = answer["message"]
        lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
        headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        return Stored(message["subject"], message["seq"], headers, base64.b64decode(message.get("data", "")))

    async def subjects(self, stream: str, subject: str) -> list[str]:
        """Return the subjects of a filter that hold a message."""
        answer = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
        return list(answer["state"].get("subjects") or {})

    async def stream(self, name: str) -> dict[str, Any]:
        """Return the configuration of a stream."""
        return (await self.api(f"STREAM.INFO.{name}"))["config"]

    async def change_stream(self, name: str, **settings: Any) -> None:
        """Change settings of a stream."""
        answer = await self.api(f"STREAM.UPDATE.{name}", await self.stream(name) | settings)
        if "error" in answer:
            raise RequestRefused(f"{name}: {answer['error']}")

    async def consumer(self, stream: str, name: str) -> dict[str, Any]:
        """Return the configuration of a consumer."""
        return (await self.api(f"CONSUMER.INFO.{stream}.{name}"))["config"]

    async def make_consumer(self, stream: str, name: str, subject: str) -> None:
        """Make the consumer of a step."""
        config = {
            "durable_name": name,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": 5_000_000_000,
            "max_ack_pending": -1,
            "max_deliver": -1,
            "max_waiting": 4096,
        }
        answer = await self.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", {"stream_name": stream, "config": config})
        if "error" in answer:
            raise RequestRefused(f"{name}: {answer['error']}")

    async def purge(self, stream: str, subject: str) -> None:
        """Remove what stands on a subject, or a filter."""
        await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})
