"""One conversation with an API, as a generator: what to send, to keep and to wait for; the drivers do it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias

import httpx
from msgspec import Struct
from msgspec.structs import replace

from fanout_guard.client import planner
from fanout_guard.client.answer import MAX_DELAY_S, Answer
from fanout_guard.client.plan import Done, Plan, Wait, expected_wait_s
from fanout_guard.client.report import Progress, Report, Stop
from fanout_guard.client.rules import Rules
from fanout_guard.client.sites import Site, canonical, digest, distinct, read_site
from fanout_guard.client.state import Chunk, Journal, State, StateError

# Nothing of the request has reached the API. ProxyError is a refused CONNECT.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# The request itself is wrong: trying again cannot help.
MISUSE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
# Those of an answer that are asked for: each byte stands for about a thousand at most.
CODINGS = ("gzip", "deflate")


class Request(Struct, frozen=True):
    """One request, ready to send; ``left_s`` is what is left of the deadline, if there is one."""

    method: str
    url: str
    content: bytes
    headers: httpx.Headers
    left_s: float | None


class Save(Struct, frozen=True):
    """Keep this state before going on; the outcome is a StateError where that failed."""

    state: State


# None after a request: the deadline passed before its answer was there.
Outcome: TypeAlias = Answer | httpx.RequestError | StateError | None
Conversation: TypeAlias = Generator[Request | Save | Wait | Report, Outcome, None]


def conversation(
    url: str,
    document: Mapping[str, Any],
    sites: Iterable[Site],
    headers: Mapping[str, str],
    rules: Rules,
    journal: Journal,
    progress: Callable[[Progress], object] | None,
) -> Conversation:
    """Yield requests, waits and states to keep, take their outcomes, and yield the report at last."""
    began = time.monotonic()
    if not isinstance(document, Mapping):
        raise ValueError(f"the document must be a mapping of the request's members, not {type(document).__name__}")
    if rules.sites_field in document:
        raise ValueError(f"the document has a member {rules.sites_field!r}, which is where the sites go")
    wanted, repeated = distinct(sites)
    state = _state_of(_spelled(document), journal)
    plan = planner.start(wanted, state, rules)
    total = len(plan.todo) + len(plan.state.delivered) + len(plan.state.doubted)
    tell = progress or _silent
    requests = 0
    failure: StateError | None = None
    while True:
        plan = planner.without_stale_key(plan, rules, now=time.time())
        action = planner.next_action(plan, rules, elapsed_s=time.monotonic() - began)
        if isinstance(action, Done):
            if plan.state != journal.state:
                plan, failure = _kept(plan, (yield Save(plan.state)), failure)
            if failure is not None and not requests:
                raise failure
            yield _report(plan, repeated, plan.stop or action.stop, requests)
            return
        if isinstance(action, Wait):
            tell(_progress(plan, total, action))
            slept = time.monotonic()
            yield _within(action, _left_s(rules, began))
            plan = planner.waited(plan, max(action.seconds, time.monotonic() - slept))
            continue
        # Written before the request leaves: a process that dies now must not take it for unsent.
        ready = planner.sending(plan, action.chunk, now=time.time())
        failed = yield Save(ready.state)
        left_s = _left_s(rules, began)
        if failed is not None or (left_s is not None and left_s <= 0):
            plan, failure = _kept(planner.cut_off(plan, rules, sent=False) if failed is None else plan, failed, failure)
            continue
        requests += 1
        outcome = yield _request(url, document, headers, rules, action.chunk, left_s)
        plan = _after(ready, rules, outcome, _left_s(rules, began))
        plan, failure = _kept(plan, (yield Save(plan.state)), failure)
        if isinstance(outcome, MISUSE):
            raise outcome
        tell(_progress(plan, total, None))


def _kept(plan: Plan, outcome: Outcome, failure: StateError | None) -> tuple[Plan, StateError | None]:
    """The plan after a save, and the failure to keep its state if there was one."""
    if not isinstance(outcome, StateError):
        return plan, failure
    return (plan if failure is not None else planner.unsaved(plan, str(outcome))), outcome


def _left_s(rules: Rules, began: float) -> float | None:
    """What is left of the deadline; None also where it is further off than any request could last."""
    if rules.deadline_s is None or rules.deadline_s > MAX_DELAY_S:
        return None
    return rules.deadline_s - (time.monotonic() - began)


def _within(wait: Wait, left_s: float | None) -> Wait:
    """The wait, not spread beyond the deadline."""
    return wait if left_s is None else replace(wait, spread_s=max(0.0, min(wait.spread_s, left_s - wait.seconds)))


def _spelled(document: Mapping[str, Any]) -> str:
    try:
        return canonical(dict(document))
    except ValueError as error:
        raise ValueError(f"the document is no JSON object: {error}") from error


def _silent(_: Progress) -> None:
    return None


def _state_of(document: str, journal: Journal) -> State:
    name = digest(document)
    if journal.state is None:
        return State(document=name, run=uuid.uuid4().hex)
    if journal.state.document != name:
        raise StateError("the state belongs to another document")
    return journal.state


def _request(
    url: str,
    document: Mapping[str, Any],
    headers: Mapping[str, str],
    rules: Rules,
    chunk: Chunk,
    left_s: float | None,
) -> Request:
    body = {**document, rules.sites_field: [read_site(site) for site in chunk.sites]}
    sent = httpx.Headers({"Content-Type": "application/json", "Accept-Encoding": ", ".join(CODINGS)})
    sent.update(headers)
    if rules.idempotency_header is not None:
        sent[rules.idempotency_header] = chunk.key
    return Request(rules.method, url, json.dumps(body, ensure_ascii=False).encode(), sent, left_s)


def _after(plan: Plan, rules: Rules, outcome: Outcome, left_s: float | None) -> Plan:
    if isinstance(outcome, Answer):
        return planner.answered(plan, rules, outcome)
    if outcome is None or (left_s is not None and left_s <= 0 and not isinstance(outcome, MISUSE)):
        return planner.cut_off(plan, rules, sent=not isinstance(outcome, NEVER_SENT))
    why = f"{type(outcome).__name__}: {outcome}"
    if isinstance(outcome, NEVER_SENT + MISUSE):
        return planner.unreached(plan, rules, why)
    return planner.lost(plan, rules, why)


def _progress(plan: Plan, total: int, wait: Wait | None) -> Progress:
    return Progress(
        total=total,
        delivered=len(plan.state.delivered),
        unknown=len(plan.state.doubted),
        left=len(plan.todo),
        wait_s=0.0 if wait is None else wait.seconds,
        because="" if wait is None else wait.because,
        expected_wait_s=expected_wait_s(plan),
    )


def _report(plan: Plan, repeated: tuple[str, ...], stop: Stop | None, requests: int) -> Report:
    def sites(spellings: Iterable[str]) -> tuple[Site, ...]:
        return tuple(map(read_site, spellings))

    return Report(
        delivered=sites(plan.state.delivered),
        not_sent=sites(plan.todo),
        unknown=sites(plan.state.doubted),
        duplicates=sites(repeated),
        stopped=stop,
        requests=requests,
        waited_s=plan.waited_s,
    )
