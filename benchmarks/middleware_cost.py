"""What the middleware adds to one request inside its process, without a server or a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from time import process_time
from typing import NamedTuple

from fanout_guard import FanoutGuardMiddleware, Settings
from fanout_guard.types import ASGIApp, Message, Receive, Scope, Send

_SITES = 300
GUARDED = "/circulate-document"


class MiddlewareCost(NamedTuple):
    """CPU time in microseconds beyond the bare application; ``guarded_in_parses`` is in ``json.loads`` of the body."""

    unguarded_us: float
    guarded_us: float
    parse_us: float

    @property
    def guarded_in_parses(self) -> float:
        """How many times the body could have been parsed instead."""
        return self.guarded_us / self.parse_us


async def measure_middleware(*, requests: int, rounds: int) -> MiddlewareCost:
    """The least of ``rounds``, bare and guarded in turn: what disturbs a computation only ever adds to it."""
    guarded = FanoutGuardMiddleware(app, settings=Settings.from_env({}))
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        bodies = [circulation_body(turn * requests + number) for number in range(requests)]
        for path in ("/other", GUARDED):
            found.setdefault(f"bare {path}", []).append(await _per_request_us(app, path, bodies))
            found.setdefault(f"guarded {path}", []).append(await _per_request_us(guarded, path, bodies))
        found.setdefault("parse", []).append(_parse_us(bodies))
    await guarded.guard.aclose()
    least = {name: min(values) for name, values in found.items()}
    return MiddlewareCost(
        unguarded_us=least["guarded /other"] - least["bare /other"],
        guarded_us=least[f"guarded {GUARDED}"] - least[f"bare {GUARDED}"],
        parse_us=least["parse"],
    )


def circulation_body(number: int) -> bytes:
    """A circulation of a document of its own to one of 64 lists of sites."""
    sites = [f"https://site-{(number % 64) * 40 + site}.example" for site in range(_SITES)]
    document = {"document_id": f"d-{number}", "document_headline": "Local news", "target_sites": sites}
    return json.dumps(document).encode()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body and answers."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _per_request_us(app: ASGIApp, path: str, bodies: Sequence[bytes]) -> float:
    calls = [(request(path, body), receiver(body)) for body in bodies]
    began = process_time()
    for scope, receive in calls:
        await app(scope, receive, ignore)
    return 1e6 * (process_time() - began) / len(bodies)


def request(path: str, body: bytes) -> Scope:
    """A POST as uvicorn hands it over."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"x-tenant-id", b"acme"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


def receiver(body: bytes) -> Callable[[], Awaitable[Message]]:
    """A server's ``receive`` with a body in one message."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def ignore(message: Message) -> None:
    """A server's ``send`` to nobody."""


def _parse_us(bodies: Sequence[bytes]) -> float:
    began = process_time()
    for body in bodies:
        json.loads(body)
    return 1e6 * (process_time() - began) / len(bodies)


if __name__ == "__main__":
    print(asyncio.run(measure_middleware(requests=500, rounds=20)))
