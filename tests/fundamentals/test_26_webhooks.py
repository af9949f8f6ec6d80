"""Webhooks: requests of other services become events, when it is proved who sends them. Over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from patience import PATIENCE, until
from starlette.applications import Starlette
from starlette.routing import Mount

from jetflow import Client, InvalidDeclaration, workflow
from jetflow.server import NatsServer
from jetflow.webhooks import Basic, GitHub, HeaderKey, Hmac, Slack, Stripe, Webhook, Webhooks
from jetflow.wire.events import PublishedEvent
from tests.dashboard.serving import serve

SECRET = "It's a Secret to Everybody"
BODY = b'{"type": "paid",  "order": {"id": "a1"}}'  # the spaces are signed, too


def signature(body: bytes, algorithm: str = "sha256", secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), body, getattr(hashlib, algorithm)).digest()


HOOKS = [
    Webhook("open", auth=None, topic="open"),
    Webhook("basic", auth=Basic("ann", "pa:ss"), topic="basic"),
    Webhook("key", auth=HeaderKey("X-Api-Key", ["new", "old"]), topic="key"),
    Webhook("hmac", auth=Hmac("X-Signature", SECRET, encoding="base64"), topic="hmac", largest=1000),
    Webhook(
        "github",
        auth=GitHub(SECRET),
        topic=lambda body, headers: f"github.{headers['x-github-event']}",
        key=lambda body, headers: body["order"]["id"],
        id=lambda body, headers: headers["x-github-delivery"],
    ),
    Webhook(
        "stripe",
        auth=Stripe(SECRET),
        topic=lambda body, headers: f"stripe.{body['type']}",
        static={"source": "stripe"},
    ),
    Webhook("slack", auth=Slack(SECRET), topic="slack"),
    Webhook("picky", auth=None, topic=lambda body, headers: body.get("topic")),
]


@pytest_asyncio.fixture
async def web(client: Client) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(Webhooks(HOOKS, client=client)) as web:
        yield web


async def sent(
    web: httpx.AsyncClient, name: str, headers: Mapping[str, str] | None = None, body: bytes = BODY
) -> tuple[int, dict[str, Any]]:
    answer = await web.post(f"/{name}", content=body, headers={"Content-Type": "application/json", **(headers or {})})
    return answer.status_code, answer.json()


async def events(client: Client) -> list[PublishedEvent]:
    return await client.events()


async def test_a_request_becomes_an_event_that_starts_a_run(
    client: Client, worker: Any, web: httpx.AsyncClient
) -> None:
    @workflow("pays")
    async def pays(body: dict[str, Any]) -> str:
        return body["order"]["id"]

    pays.on("stripe.*")
    at = str(int(time.time()))
    signed = signature(f"{at}.".encode() + BODY).hex()
    async with worker([pays]):
        status, told = await sent(web, "stripe", {"Stripe-Signature": f"t={at},v0=no,v1={'0' * 64},v1={signed}"})
        assert (status, told["message"]) == (200, "ok")

        async def is_started() -> bool:
            return bool(await client.runs_of_event(told["event"]["id"]))

        await until(is_started)
        [run] = (await client.runs_of_event(told["event"]["id"])).values()
        assert await client.run(run).result(timeout=PATIENCE) == "a1"
    [event] = await events(client)
    assert (event.topic, event.payload["source"], event.metadata) == ("stripe.paid", "stripe", {"webhook": "stripe"})


async def test_the_signature_of_github(client: Client, web: httpx.AsyncClient) -> None:
    headers = {
        "X-Hub-Signature-256": f"sha256={signature(BODY).hex()}",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "72d3162e",
    }
    assert (await sent(web, "github", headers))[0] == 200
    assert (await sent(web, "github", headers))[0] == 200  # delivered again: the same event
    [event] = await events(client)
    assert (event.topic, event.key, event.id) == ("github.push", "a1", "github.push/72d3162e")


def test_the_example_that_github_gives() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries, Testing the validation."""
    signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert GitHub(SECRET).verdict({"x-hub-signature-256": signed}, b"Hello, World!") == "ok"


async def test_the_signature_of_slack_and_its_challenge(client: Client, web: httpx.AsyncClient) -> None:
    def headers(body: bytes, at: float) -> dict[str, str]:
        signed = signature(f"v0:{int(at)}:".encode() + body).hex()
        return {"X-Slack-Request-Timestamp": str(int(at)), "X-Slack-Signature": f"v0={signed}"}

    challenge = b'{"type": "url_verification", "challenge": "3eZbrw1a"}'
    assert await sent(web, "slack", headers(challenge, time.time()), challenge) == (200, {"challenge": "3eZbrw1a"})
    assert await events(client) == []
    assert (await sent(web, "slack", headers(BODY, time.time())))[0] == 200
    assert (await sent(web, "slack", headers(BODY, time.time() - 400)))[0] == 403  # sent again by who has recorded it
    form = b"token=x&command=%2Fpay&text="
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await sent(web, "slack", headers(form, time.time()) | kind, form))[0] == 200
    pressed = b"payload=%7B%22type%22%3A%22block_actions%22%7D"
    assert (await sent(web, "slack", headers(pressed, time.time()) | kind, pressed))[0] == 200
    assert [event.payload for event in (await events(client))[1:]] == [
        {"token": "x", "command": "/pay", "text": ""},
        {"type": "block_actions"},
    ]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
@pytest.mark.parametrize("prefix", ["", "v="])
def test_signatures_in_the_usual_forms(algorithm: Any, encoding: Any, prefix: str) -> None:
    auth = Hmac("X-Signature", SECRET, algorithm=algorithm, encoding=encoding, prefix=prefix)
    write = {"hex": bytes.hex, "base64": base64.b64encode, "base64url": base64.urlsafe_b64encode}[encoding]
    for number in range(20):  # so that each of + / - _ and each padding is among them
        body = b"%d" % number
        written = write(signature(body, algorithm))
        text = written if isinstance(written, str) else written.decode()
        assert auth.verdict({"x-signature": prefix + text}, body) == "ok"
        assert auth.verdict({"x-signature": prefix + text}, body + b" ") == "wrong"
        assert auth.verdict({"x-signature": prefix + text[:-4]}, body) == "wrong"


NOBODY = {
    "basic": [None, ""],
    "key": [None],
    "hmac": [None],
    "github": [None],
    "stripe": [None],
    "slack": [None],
}


@pytest.mark.parametrize("name", list(NOBODY))
async def test_who_says_nothing_of_who_it_is_is_refused(client: Client, web: httpx.AsyncClient, name: str) -> None:
    status, _ = await sent(web, name)
    assert (status, await events(client)) == (401, [])


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("basic", basic("ann:wrong")),
        ("basic", basic("bob:pa:ss")),
        ("basic", basic(":")),
        ("basic", {"Authorization": "Basic"}),
        ("basic", {"Authorization": "Basic %%%"}),
        ("key", {"X-Api-Key": ""}),
        ("key", {"X-Api-Key": "newer"}),
        ("hmac", {"X-Signature": ""}),
        ("hmac", {"X-Signature": base64.b64encode(signature(BODY, secret="another")).decode()}),
        ("hmac", {"X-Signature": base64.b64encode(signature(BODY + b" ")).decode()}),
        ("github", {"X-Hub-Signature-256": signature(BODY).hex()}),
        ("stripe", {"Stripe-Signature": f"t=1,v1={signature(b'1.' + BODY).hex()}"}),
        ("stripe", {"Stripe-Signature": f"v1={signature(BODY).hex()}"}),
        ("slack", {"X-Slack-Request-Timestamp": "1", "X-Slack-Signature": "v0="}),
    ],
)
async def test_who_proves_it_wrongly_is_refused_and_no_event_is_made(
    client: Client, web: httpx.AsyncClient, name: str, headers: dict[str, str]
) -> None:
    assert (await sent(web, name, headers))[0] == 403
    assert await events(client) == []


async def test_who_proves_it_is_let_in(client: Client, web: httpx.AsyncClient) -> None:
    signed = base64.b64encode(signature(BODY)).decode()
    assert (await sent(web, "basic", basic("ann:pa:ss")))[0] == 200
    assert (await sent(web, "key", {"X-Api-Key": "old"}))[0] == 200
    assert (await sent(web, "key", {"X-Api-Key": "new"}))[0] == 200
    assert (await sent(web, "hmac", {"X-Signature": signed}))[0] == 200
    assert [event.topic for event in await events(client)] == ["basic", "key", "key", "hmac"]


@pytest.mark.parametrize("body", [b"", b"{", b"no json", b'{"a": NaN}'])
async def test_a_body_that_is_no_json_is_refused(client: Client, web: httpx.AsyncClient, body: bytes) -> None:
    assert (await sent(web, "open", body=body))[0] == 400
    assert await events(client) == []


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(web: httpx.AsyncClient) -> None:
    assert (await sent(web, "hmac", body=b" " * 1001))[0] == 413

    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b" " * 100

    answer = await web.post("/hmac", content=pieces())  # of a length that nobody has said
    assert answer.status_code == 413


async def test_a_request_that_fits_no_event(client: Client, web: httpx.AsyncClient) -> None:
    assert await sent(web, "picky", body=b"{}") == (200, {"message": "ok", "event": None})
    assert await sent(web, "picky", body=b"[]") == (400, {"message": "the request fits no event"})
    assert (await sent(web, "picky", body=b'{"topic": "not a topic"}'))[0] == 400
    assert await events(client) == []


async def test_other_paths_and_methods(web: httpx.AsyncClient) -> None:
    assert (await sent(web, "nosuch"))[0] == 404
    assert (await sent(web, "open/more"))[0] == 404
    assert (await web.get("/open")).status_code == 405


async def test_it_connects_by_itself_and_is_mounted_below_a_path(nats_server: NatsServer, namespace: str) -> None:
    hooks = Webhooks([Webhook("open", auth=None, topic="open")], server=nats_server.url, namespace=namespace)
    for app, lifespan in ((hooks, "on"), (Starlette(routes=[Mount("/hooks", hooks)]), "off")):
        async with serve(app, lifespan=lifespan) as web:
            path = "open" if app is hooks else "hooks/open"
            status, told = await sent(web, path, body=json.dumps({"n": 1}).encode())
            assert (status, told["event"]["topic"]) == (200, "open")
    await hooks.close()


async def test_where_the_broker_is_away_the_sender_is_told_to_send_it_again() -> None:
    hooks = Webhooks([Webhook("open", auth=None, topic="open")], server="nats://127.0.0.1:1")
    async with serve(hooks) as web:
        answer = await web.post("/open", json={})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


def test_what_is_no_webhook_is_refused_where_it_is_declared() -> None:
    hook = Webhook("one", auth=None, topic="one")
    with pytest.raises(InvalidDeclaration, match="two webhooks"):
        Webhooks([hook, hook])
    with pytest.raises(InvalidDeclaration, match="no topic"):
        Webhook("one", auth=None, topic="a b")
    with pytest.raises(ValueError, match="is not empty"):
        GitHub("")
    with pytest.raises(ValueError, match="algorithm"):
        Hmac("X-Signature", SECRET, algorithm="crc32")  # pyright: ignore[reportArgumentType]
