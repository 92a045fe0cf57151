"""What the middleware adds to one request inside its process, without a server or a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import NamedTuple

from fanout_guard import FanoutGuardMiddleware, Settings
from fanout_guard.types import ASGIApp, Message, Receive, Scope, Send

_SITES = 300
_PATH = "/circulate-document"


class MiddlewareCost(NamedTuple):
    """Microseconds beyond the bare application; ``guarded_in_parses`` is in ``json.loads`` of the body."""

    unguarded_us: float
    guarded_us: float
    parse_us: float

    @property
    def guarded_in_parses(self) -> float:
        """How many times the body could have been parsed instead."""
        return self.guarded_us / self.parse_us


async def measure_middleware(*, requests: int, rounds: int) -> MiddlewareCost:
    """The least of ``rounds``, bare and guarded in turn: what disturbs a computation only ever adds to it."""
    guarded = FanoutGuardMiddleware(_app, settings=Settings.from_env({}))
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        bodies = [_body(turn * requests + number) for number in range(requests)]
        for path in ("/other", _PATH):
            found.setdefault(f"bare {path}", []).append(await _per_request_us(_app, path, bodies))
            found.setdefault(f"guarded {path}", []).append(await _per_request_us(guarded, path, bodies))
        found.setdefault("parse", []).append(_parse_us(bodies))
    await guarded.guard.aclose()
    least = {name: min(values) for name, values in found.items()}
    return MiddlewareCost(
        unguarded_us=least["guarded /other"] - least["bare /other"],
        guarded_us=least[f"guarded {_PATH}"] - least[f"bare {_PATH}"],
        parse_us=least["parse"],
    )


def _body(number: int) -> bytes:
    sites = [f"https://site-{(number % 64) * 40 + site}.example" for site in range(_SITES)]
    document = {"document_id": f"d-{number}", "document_headline": "Local news", "target_sites": sites}
    return json.dumps(document).encode()


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _per_request_us(app: ASGIApp, path: str, bodies: Sequence[bytes]) -> float:
    calls = [(_scope(path, body), _receiver(body)) for body in bodies]
    began = perf_counter()
    for scope, receive in calls:
        await app(scope, receive, _send)
    return 1e6 * (perf_counter() - began) / len(bodies)


def _scope(path: str, body: bytes) -> Scope:
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


def _receiver(body: bytes) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send(message: Message) -> None:
    return None


def _parse_us(bodies: Sequence[bytes]) -> float:
    began = perf_counter()
    for body in bodies:
        json.loads(body)
    return 1e6 * (perf_counter() - began) / len(bodies)


if __name__ == "__main__":
    print(asyncio.run(measure_middleware(requests=500, rounds=20)))
