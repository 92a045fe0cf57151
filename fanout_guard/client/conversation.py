"""One conversation with an API, as a generator: what to send, to keep and to wait for; the drivers do it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
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
# The codings of an answer that are asked for: in these, a byte unpacks to about a thousand at most.
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


Outcome: TypeAlias = Answer | httpx.RequestError | StateError | None
"""What came of a step; None after a request says that the deadline passed before its answer was there."""
Steps: TypeAlias = Generator[Request | Save | Wait | Report, Outcome, None]
_Part: TypeAlias = Generator[Request | Save | Wait, Outcome, Plan]


@dataclass(slots=True)
class Conversation:
    """What one call goes by, and what it has come to: the requests sent, and the failure to keep its state, if any."""

    url: str
    document: Mapping[str, Any]
    headers: Mapping[str, str]
    rules: Rules
    journal: Journal
    progress: Callable[[Progress], object] | None
    began_s: float = field(default_factory=time.monotonic)
    requests: int = 0
    failure: StateError | None = None

    def steps(self, sites: Iterable[Site]) -> Steps:
        """Yield requests, waits and states to keep, take their outcomes, and yield the report at last."""
        document = _spelled(self.document, self.rules)
        wanted, repeated = distinct(sites)
        plan = planner.start(wanted, _state_of(document, self.journal), self.rules)
        while True:
            plan = planner.without_stale_key(plan, self.rules, now=time.time())
            action = planner.next_action(plan, self.rules, elapsed_s=time.monotonic() - self.began_s)
            if isinstance(action, Done):
                break
            plan = yield from self._wait(plan, action) if isinstance(action, Wait) else self._send(plan, action.chunk)
        if plan.state != self.journal.state:
            plan = yield from self._keep(plan, plan.state)
        if self.failure is not None and not self.requests:
            raise self.failure
        yield _report(plan, repeated, plan.stop or action.stop, self.requests)

    def _wait(self, plan: Plan, wait: Wait) -> _Part:
        self._tell(plan, wait)
        slept_s = time.monotonic()
        yield _within(wait, self._left_s())
        return planner.waited(plan, max(wait.seconds, time.monotonic() - slept_s))

    def _send(self, plan: Plan, chunk: Chunk) -> _Part:
        # Kept before the request leaves: a process that dies now must not take it for unsent.
        ready = planner.sending(plan, chunk, now=time.time())
        plan = yield from self._keep(plan, ready.state)
        if plan.stop is not None:
            return plan
        left_s = self._left_s()
        if left_s is not None and left_s <= 0:
            return planner.cut_off(plan, self.rules, sent=False)
        self.requests += 1
        outcome = yield self._request(chunk, left_s)
        plan = _after(ready, self.rules, outcome, self._left_s())
        plan = yield from self._keep(plan, plan.state)
        if isinstance(outcome, MISUSE):
            raise outcome
        self._tell(plan, None)
        return plan

    def _request(self, chunk: Chunk, left_s: float | None) -> Request:
        rules = self.rules
        body = {**self.document, rules.sites_field: [read_site(site) for site in chunk.sites]}
        headers = httpx.Headers({"Content-Type": "application/json", "Accept-Encoding": ", ".join(CODINGS)})
        headers.update(self.headers)
        if rules.idempotency_header is not None:
            headers[rules.idempotency_header] = chunk.key
        return Request(rules.method, self.url, json.dumps(body, ensure_ascii=False).encode(), headers, left_s)

    def _keep(self, plan: Plan, state: State) -> _Part:
        """Keep a state; the plan then, which sends nothing more once that has failed."""
        outcome = yield Save(state)
        if not isinstance(outcome, StateError):
            return plan
        is_first = self.failure is None
        self.failure = outcome
        return planner.unsaved(plan, str(outcome)) if is_first else plan

    def _left_s(self) -> float | None:
        """What is left of the deadline; None also where it is further off than any request could last."""
        if self.rules.deadline_s is None or self.rules.deadline_s > MAX_DELAY_S:
            return None
        return self.rules.deadline_s - (time.monotonic() - self.began_s)

    def _tell(self, plan: Plan, wait: Wait | None) -> None:
        if self.progress is not None:
            self.progress(_progress(plan, wait))


def _within(wait: Wait, left_s: float | None) -> Wait:
    """The wait, not spread beyond the deadline."""
    return wait if left_s is None else replace(wait, spread_s=max(0.0, min(wait.spread_s, left_s - wait.seconds)))


def _spelled(document: object, rules: Rules) -> str:
    if not isinstance(document, Mapping):
        raise ValueError(f"the document must be a mapping of the request's members, not {type(document).__name__}")
    if rules.sites_field in document:
        raise ValueError(f"the document has a member {rules.sites_field!r}, which is where the sites go")
    try:
        return canonical(dict(document))
    except ValueError as error:
        raise ValueError(f"the document is no JSON object: {error}") from error


def _state_of(document: str, journal: Journal) -> State:
    name = digest(document)
    if journal.state is None:
        return State(document=name, run=uuid.uuid4().hex)
    if journal.state.document != name:
        raise StateError("the state belongs to another document")
    return journal.state


def _after(plan: Plan, rules: Rules, outcome: Outcome, left_s: float | None) -> Plan:
    if isinstance(outcome, Answer):
        return planner.answered(plan, rules, outcome)
    if outcome is None or (left_s is not None and left_s <= 0 and not isinstance(outcome, MISUSE)):
        return planner.cut_off(plan, rules, sent=not isinstance(outcome, NEVER_SENT))
    why = f"{type(outcome).__name__}: {outcome}"
    if isinstance(outcome, NEVER_SENT + MISUSE):
        return planner.unreached(plan, rules, why)
    return planner.lost(plan, rules, why)


def _progress(plan: Plan, wait: Wait | None) -> Progress:
    return Progress(
        total=len(plan.todo) + len(plan.state.delivered) + len(plan.state.doubted),
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
