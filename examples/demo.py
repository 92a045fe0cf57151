"""``make demo``: a real server, a real API in two workers, real site receivers, and the circulations of the story.

Every row is one circulation over HTTP; what the sites got is checked against what the API admitted. With ``--serve``
the servers stay up, with lines to try.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from examples.publishing_api.servers import ServerFailed, Servers, Setup, serve

PATH = "/circulate-document"
CLIENTS = 50
SERVICE_S = 0.1
ENVIRON = {
    "FANOUT_GUARD_TENANT__bigpress__MAX_SITES": "500",
    "FANOUT_GUARD_REDIS_TIMEOUT": "1",  # a busy laptop is no outage
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One circulation and the answer that the story promises."""

    what: str
    tenant: str
    document: str
    sites: Sequence[str]
    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def why(self) -> str:
        """The answer in a few words."""
        if self.status == 200:
            return f"delivered to {self.body['delivered']}"
        policies = ", ".join(self.body.get("violated-policies", ()))
        later = f", all in {self.body['retry_after']} s" if "retry_after" in self.body else ""
        return f"over {policies}; {self.body.get('fits_now')} would fit now{later}"


def sites(first: int, count: int) -> list[str]:
    """Names of sites, as the story's client has them."""
    return [f"Site{number}" for number in range(first, first + count)]


def story() -> Iterator[Ask]:
    """The circulations, in order."""
    for count in (100, 200, 300, 301, 400, 500):
        expected = 200 if count <= 300 else 422
        yield Ask(what="", tenant="gazette", document=f"d-{count}", sites=sites(0, count), expected=expected)
    yield Ask(what="first half", tenant="gazette", document="d-split", sites=sites(0, 250), expected=200)
    yield Ask(what="other half", tenant="gazette", document="d-split", sites=sites(250, 250), expected=429)
    yield Ask(what="first half again", tenant="gazette", document="d-split", sites=sites(0, 250), expected=200)
    yield Ask(what="own cap of 500", tenant="bigpress", document="d-1", sites=sites(0, 500), expected=200)


async def circulate(session: aiohttp.ClientSession, ask: Ask) -> Answer:
    """Send one circulation as the story's client does."""
    body = {"document_id": ask.document, "document_headline": "A headline", "target_sites": list(ask.sites)}
    began = time.perf_counter()
    async with session.post(PATH, json=body, headers={"X-Tenant-ID": ask.tenant}) as answer:
        return Answer(
            status=answer.status, body=await answer.json(content_type=None), seconds=time.perf_counter() - began
        )


async def tell_story(session: aiohttp.ClientSession, console: Console) -> list[str]:
    """Send every circulation of the story; what went otherwise than promised."""
    table = Table("tenant", "document", "sites", "status", "ms", "why", title="One after the other")
    failures = []
    for ask in story():
        answer = await circulate(session, ask)
        right = answer.status == ask.expected
        status = f"[{'green' if answer.status == 200 else 'yellow'}]{answer.status}[/]"
        why = f"{ask.what}: {answer.why}" if ask.what else answer.why
        ms = f"{answer.seconds * 1000:.0f}"
        table.add_row(ask.tenant, ask.document, str(len(ask.sites)), status, ms, why)
        if not right:
            failures.append(f"{ask.document} with {len(ask.sites)} sites: {answer.status}, expected {ask.expected}")
    console.print(table)
    return failures


async def crowd(session: aiohttp.ClientSession, servers: Servers, console: Console) -> list[str]:
    """Fifty clients at once, one document, twenty sites each: the two workers admit exactly 300 of the 1,000."""
    asks = [
        Ask(what="", tenant="gazette", document="d-crowd", sites=sites(20 * client, 20), expected=0)
        for client in range(CLIENTS)
    ]
    began = time.perf_counter()
    answers = await asyncio.gather(*(circulate(session, ask) for ask in asks))
    statuses = Counter(answer.status for answer in answers)
    got = servers.received("d-crowd")
    console.print(
        f"{CLIENTS} clients at once, one document, 20 sites each: {statuses[200]} admitted, {statuses[429]} told to "
        f"wait, {got['sites']} sites reached ({time.perf_counter() - began:.1f} s)",
        soft_wrap=True,
    )
    right = statuses == {200: 15, 429: 35} and got["sites"] == 300
    return [] if right else [f"50 clients: {dict(statuses)} and {got['sites']} sites, expected 15 × 200 and 300 sites"]


async def run(servers: Servers, console: Console) -> list[str]:
    """The whole demonstration; what went wrong."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(servers.api_url, timeout=timeout) as session:
        failures = await tell_story(session, console)
        failures += await crowd(session, servers, console)
    expected = sum(len(ask.sites) for ask in story() if ask.expected == 200) + 300
    delivered = servers.received()["deliveries"]
    console.print(f"The sites got {delivered} documents; {expected} were admitted.")
    if delivered != expected:
        failures.append(f"{delivered} deliveries, expected {expected}")
    return failures


def stay(servers: Servers, console: Console) -> None:
    """Print lines to try, and stay up until Ctrl-C."""
    body = '{"document_id": "d-1", "document_headline": "Hello", "target_sites": ["Site1", "Site2"]}'
    console.print("\nStill running; Ctrl-C ends it. Try:", markup=False)
    for line in (
        f"curl -i {servers.api_url}{PATH} -H 'content-type: application/json' -d '{body}'",
        f"curl -s {servers.sites_url}/received",
        f"FANOUT_GUARD_REDIS_URL={servers.redis_url} .venv/bin/fanout-guard usage gazette",
        f"FANOUT_GUARD_REDIS_URL={servers.redis_url} .venv/bin/fanout-guard caps set gazette max_sites=100 --for 1h",
    ):
        console.print(f"  {line}", markup=False, soft_wrap=True, highlight=False)
    while True:
        time.sleep(1)
        servers.check()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration: 0 if everything went as promised, 1 if not, 4 if a server failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="stay up afterwards")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        with serve(Setup(workers=2, service_seconds=SERVICE_S, environ=dict(ENVIRON))) as servers:
            console.print(
                f"API with two workers at {servers.api_url}, counters in Valkey at {servers.redis_url}", soft_wrap=True
            )
            failures = asyncio.run(run(servers, console))
            for failure in failures:
                print(f"not as promised: {failure}", file=sys.stderr)
            if options.serve:
                stay(servers, console)
    except KeyboardInterrupt:
        return 0
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 4
    if not failures:
        console.print("[green]Everything as promised.[/]")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
