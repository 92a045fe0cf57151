"""What the applications share; a process serves one of them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fanout_guard import Admission
from fanout_guard.types import ASGIApp, Receive, Scope, Send

ORIGIN = "https://editor.example"
EXPOSED = ["Retry-After", "RateLimit", "RateLimit-Policy"]
PARTS = ["one\n", "two\n", "three\n"]

received: Counter[str] = Counter()
go_on = asyncio.Event()


@dataclass(frozen=True)
class User:
    """What authentication knows of a client."""

    tenant_id: str


class Authentication:
    """Puts the user into the scope, as authentication middleware does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the bearer token for the tenant's name."""
        if scope["type"] == "http":
            token = dict(scope["headers"]).get(b"authorization", b"Bearer nobody")
            scope["user"] = User(token.decode().removeprefix("Bearer "))
        await self.app(scope, receive, send)


def record(admission: Admission, sites: list[str]) -> dict[str, Any]:
    """What every application answers: the admission as the handler sees it."""
    received.update(sites)
    return {"tenant": admission.tenant, "sites": admission.sites, "document": admission.document}


async def parts() -> AsyncIterator[str]:
    """The first part at once, the rest when somebody says so: a buffered response never gets there."""
    go_on.clear()
    yield PARTS[0]
    await go_on.wait()
    for part in PARTS[1:]:
        yield part


def status() -> dict[str, Any]:
    """Which run this process belongs to, and what the sites got."""
    return {"nonce": os.environ.get("TEST_NONCE"), "received": dict(received)}
