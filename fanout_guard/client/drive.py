"""The two drivers, over httpx: one conversation as a generator, and the loop around it with and without ``await``."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, TypeAlias

import anyio
import httpx
from msgspec import Struct

from fanout_guard.client import planner
from fanout_guard.client.answer import read_answer
from fanout_guard.client.plan import Done, Plan, Wait, expected_wait_s
from fanout_guard.client.report import Progress, Report, Stop
from fanout_guard.client.rules import Rules
from fanout_guard.client.sites import Site, canonical, digest, distinct, read_site
from fanout_guard.client.state import Chunk, Journal, State, StateError

# Reading waits longer than httpx's 5 s: a circulation is answered when its slowest site has it.
TIMEOUT = httpx.Timeout(10.0, read=300.0)
# No connection waits with us: a server that closes an idle one just as we send leaves the circulation in doubt.
LIMITS = httpx.Limits(max_keepalive_connections=0)

# Nothing of the request has reached the API. ProxyError is a refused CONNECT.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# The request itself is wrong: trying again cannot help.
MISUSE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Request(Struct, frozen=True):
    """One request, ready to send."""

    method: str
    url: str
    content: bytes
    headers: httpx.Headers


Outcome: TypeAlias = httpx.Response | httpx.RequestError | None
Conversation: TypeAlias = Generator[Request | Wait, Outcome, Report]


def circulate(
    url: str,
    document: Mapping[str, Any],
    sites: Iterable[Site],
    *,
    headers: Mapping[str, str] | None = None,
    http: httpx.Client | None = None,
    rules: Rules | None = None,
    state: Journal | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Circulate ``document`` (the request's members but the sites) to every site, once, as fast as the caps allow.

    Blocks for as long as that takes, bounded by ``rules``. ``state`` keeps what was done, also after an interrupt;
    give the same one again to go on. A client of your own (``http``) had better keep no idle connections, as the one
    made here: a server that closes one at the wrong moment leaves a circulation in doubt. Raises ValueError for sites
    or a document that are none, and StateError for a state that cannot be used; what the API does is reported.
    """
    headers, rules = headers or {}, rules or Rules()
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=TIMEOUT, limits=LIMITS)) if http is None else http
        journal = stack.enter_context(Journal() if state is None else state)
        steps = _conversation(url, document, sites, headers, rules, journal, progress)
        client.build_request(rules.method, url, headers=headers)  # a wrong URL or header raises before the journal
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                report: Report = end.value
                return report
            if isinstance(step, Wait):
                time.sleep(_spread(step))
                continue
            try:
                outcome = client.request(step.method, step.url, content=step.content, headers=step.headers)
            except httpx.RequestError as error:
                outcome = error


async def circulate_async(
    url: str,
    document: Mapping[str, Any],
    sites: Iterable[Site],
    *,
    headers: Mapping[str, str] | None = None,
    http: httpx.AsyncClient | None = None,
    rules: Rules | None = None,
    state: Journal | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    """The same as ``circulate``, to be awaited; cancelling it leaves the state right."""
    headers, rules = headers or {}, rules or Rules()
    async with AsyncExitStack() as stack:
        client = (
            await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)) if http is None else http
        )
        journal = stack.enter_context(Journal() if state is None else state)
        steps = _conversation(url, document, sites, headers, rules, journal, progress)
        client.build_request(rules.method, url, headers=headers)  # a wrong URL or header raises before the journal
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                report: Report = end.value
                return report
            if isinstance(step, Wait):
                await anyio.sleep(_spread(step))
                continue
            try:
                outcome = await client.request(step.method, step.url, content=step.content, headers=step.headers)
            except httpx.RequestError as error:
                outcome = error


def _spread(wait: Wait) -> float:
    return wait.seconds + wait.spread_s * random.random()  # noqa: S311 - spreads load, guards nothing


def _conversation(
    url: str,
    document: Mapping[str, Any],
    sites: Iterable[Site],
    headers: Mapping[str, str],
    rules: Rules,
    journal: Journal,
    progress: Callable[[Progress], object] | None,
) -> Conversation:
    """Yield requests and waits, take their outcomes, keep the journal, and return the report."""
    if rules.sites_field in document:
        raise ValueError(f"the document has a member {rules.sites_field!r}, which is where the sites go")
    wanted, repeated = distinct(sites)
    state = _state_of(canonical(document), journal)
    plan = planner.start(wanted, state, rules)
    total = len(plan.todo) + len(plan.state.delivered) + len(plan.state.in_doubt)
    tell = progress or _silent
    requests, began = 0, time.monotonic()
    while True:
        plan = planner.without_stale_key(plan, rules, now=time.time())
        action = planner.next_action(plan, rules, elapsed_s=time.monotonic() - began)
        if isinstance(action, Done):
            journal.save(plan.state)
            return _report(plan, wanted, repeated, action.stop, requests)
        if isinstance(action, Wait):
            tell(_progress(plan, total, action))
            slept = time.monotonic()
            yield action
            plan = planner.waited(plan, max(action.seconds, time.monotonic() - slept))
            continue
        plan = planner.sending(plan, action.chunk, now=time.time())
        # Written before the request leaves: a process that dies now must not take it for unsent.
        journal.save(plan.state)
        requests += 1
        outcome = yield _request(url, document, headers, rules, action.chunk)
        plan = _after(plan, rules, outcome)
        journal.save(plan.state)
        if isinstance(outcome, MISUSE):
            raise outcome
        tell(_progress(plan, total, None))


def _silent(_: Progress) -> None:
    return None


def _state_of(document: str, journal: Journal) -> State:
    name = digest(document)
    if journal.state is None:
        return State(document=name, run=uuid.uuid4().hex)
    if journal.state.document != name:
        raise StateError("the state belongs to another document")
    return journal.state


def _request(url: str, document: Mapping[str, Any], headers: Mapping[str, str], rules: Rules, chunk: Chunk) -> Request:
    body = {**document, rules.sites_field: [read_site(site) for site in chunk.sites]}
    sent = httpx.Headers({"Content-Type": "application/json"})
    sent.update(headers)
    if rules.idempotency_header is not None:
        sent[rules.idempotency_header] = chunk.key
    return Request(rules.method, url, json.dumps(body, ensure_ascii=False).encode(), sent)


def _after(plan: Plan, rules: Rules, outcome: Outcome) -> Plan:
    if isinstance(outcome, httpx.Response):
        answer = read_answer(outcome.status_code, outcome.headers, outcome.content, time.time())
        return planner.answered(plan, rules, answer)
    why = f"{type(outcome).__name__}: {outcome}"
    if isinstance(outcome, NEVER_SENT + MISUSE):
        return planner.unreached(plan, rules, why)
    return planner.lost(plan, rules, why)


def _progress(plan: Plan, total: int, wait: Wait | None) -> Progress:
    return Progress(
        total=total,
        delivered=len(plan.state.delivered),
        unknown=len(plan.state.in_doubt),
        left=len(plan.todo),
        wait_s=0.0 if wait is None else wait.seconds,
        because="" if wait is None else wait.because,
        expected_wait_s=expected_wait_s(plan),
    )


def _report(plan: Plan, wanted: tuple[str, ...], repeated: tuple[str, ...], stop: Stop | None, requests: int) -> Report:
    def sites(spellings: Iterable[str]) -> tuple[Site, ...]:
        return tuple(map(read_site, spellings))

    return Report(
        delivered=sites(plan.state.delivered),
        not_sent=sites(plan.todo),
        unknown=sites(plan.state.in_doubt),
        duplicates=sites(repeated),
        stopped=stop,
        requests=requests,
        waited_s=plan.waited_s,
    )
