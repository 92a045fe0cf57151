"""The same decisions, leases and refunds get the same answers in this process and on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout_guard.core.model import Policy, Rate
from tests.counters.bench import LONG_MS, Bench, Circulated, ServerTime, in_memory, shared_counters
from tests.counters.servers import binary_of, running

SITES = st.sets(st.integers(1, 40), min_size=1, max_size=15)
CAPS = st.one_of(st.none(), st.sampled_from((5, 15, 20, 40)))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Caps as overrides move them about; windows in which no test sees time pass, now and then another one."""
    windows = draw(st.sampled_from(((), (60_000,), (LONG_MS,), (LONG_MS, 24 * LONG_MS))))
    return Policy(
        circulation=None,
        document=draw(CAPS),
        document_window_ms=draw(st.sampled_from((LONG_MS, LONG_MS, 2 * LONG_MS))),
        rates=tuple(Rate(draw(st.sampled_from((15, 30, 60))), window) for window in windows),
        inflight=draw(CAPS),
        inflight_global=draw(CAPS),
    )


class Step(NamedTuple):
    """One call; ``which`` picks the circulation that it is about."""

    kind: str
    which: int
    sites: frozenset[int]
    entries: int
    policy: Policy
    tenant: str
    document: str
    keyed: bool


KINDS = ("circulate",) * 4 + ("repeat", "again", "look", "refund", "entries", "sites", "release", "renew", "reset")

steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(KINDS),
        which=st.integers(0, 5),
        sites=SITES.map(frozenset),
        entries=st.integers(0, 20),
        policy=policies(),
        tenant=st.sampled_from(("a", "b")),
        document=st.sampled_from(("d", "e")),
        keyed=st.booleans(),
    ),
    min_size=3,
    max_size=25,
)


async def answers(bench: Bench, sequence: list[Step]) -> list[object]:
    """What the counters say to each step, as far as it does not depend on the time of day."""
    done: list[Circulated] = []
    found: list[object] = []
    for step in sequence:
        key = f"{sorted(step.sites)} {step.document}" if step.keyed else ""
        if step.kind == "circulate" or not done:
            sites = sorted(step.sites)
            done.append(await bench.circulate(sites, step.policy, tenant=step.tenant, document=step.document, key=key))
            found.append(_said(done[-1]))
            continue
        chosen = done[step.which % len(done)]
        if step.kind == "repeat":
            done.append(await chosen.repeat())
            found.append(_said(done[-1]))
        else:
            found.append(await _settled(bench, chosen, step))
        found.append(await bench.used(chosen.charge.policy, tenant=step.tenant, document=step.document))
    return found


async def _settled(bench: Bench, chosen: Circulated, step: Step) -> object:
    match step.kind:
        case "again":
            return (await chosen.again()).charged
        case "look":
            return (await chosen.look()).charged
        case "refund":
            return await chosen.refund()
        case "entries":
            return await chosen.refund(step.entries)
        case "sites":
            return await chosen.refund(sites=sorted(step.sites), counts=[2] * len(step.sites))
        case "release":
            return await chosen.release()
        case "renew":
            return await chosen.renew(LONG_MS, exact=step.keyed)
    await bench.counters.reset(step.tenant, chosen.lease.document or None)
    return None


def _said(circulated: Circulated) -> object:
    tally = circulated.tally
    readings = [(r.policy, r.limit, r.used, r.needed, r.wait_ms > 0, r.reset_ms > 0) for r in tally.readings]
    return tally.charged, tally.repeated, readings


class Pair:
    """A server's counters beside those of this process, and an event loop in which to ask both."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._runner = asyncio.Runner()

    def agree(self, sequence: list[Step]) -> None:
        """Both say the same to the whole sequence."""
        self._runner.run(self._compare(sequence))

    def close(self) -> None:
        """End the connections."""
        self._runner.close()

    async def _compare(self, sequence: list[Step]) -> None:
        counters = shared_counters(self._url)
        await counters.command("FLUSHALL")
        shared = Bench(counters, ServerTime(counters))
        own = in_memory(await shared.time.now())
        try:
            assert await answers(own, sequence) == await answers(shared, sequence)
        finally:
            await counters.aclose()


@pytest.fixture(scope="module", params=["valkey", "redis"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Each kind of server."""
    binary = binary_of(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server on this machine")
    with running(binary) as url:
        pair = Pair(url)
        yield pair
        pair.close()


@settings(max_examples=60)
@given(sequence=steps)
def test_counters_in_the_process_and_on_a_server_agree(pair: Pair, sequence: list[Step]) -> None:
    """During an outage, and where there is no server, the rules must not be other rules."""
    pair.agree(sequence)
