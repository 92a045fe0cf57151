"""The two drivers, over httpx: the loop around a conversation, with and without ``await``."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from threading import Thread
from typing import Any

import anyio
import httpx

from fanout_guard.client.answer import read_answer
from fanout_guard.client.conversation import CODINGS, Conversation, Outcome, Request, Save
from fanout_guard.client.plan import Wait
from fanout_guard.client.report import Progress, Report
from fanout_guard.client.rules import Rules
from fanout_guard.client.sites import Site
from fanout_guard.client.state import Journal, State, StateError

# Reading waits longer than httpx's 5 s: a circulation is answered when its slowest site has it.
TIMEOUT = httpx.Timeout(10.0, read=300.0)
# No idle connection is kept: where the server closes one just as a request goes out, its circulation is in doubt.
LIMITS = httpx.Limits(max_keepalive_connections=0)
# How long after the deadline an outcome is still taken: connecting ends at the deadline itself, and its error comes
# first then, which says that certainly nothing was sent.
GRACE_S = 0.25
# How much of an answer is kept: a problem document has some hundred bytes, and no answer may fill the memory. The rest
# is read and dropped, since closing the connection could stop what the API is still doing.
MOST_BYTES = 1 << 20


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
    """Circulate ``document`` (the request's members except the sites) to every site, once, as fast as the caps allow.

    Blocks for as long as that takes, bounded by ``rules``. ``state`` records what was done, even after an interrupt;
    pass the same one again to continue. If you pass a client of your own (``http``), let it keep no idle connections,
    as the built-in one does: a server that closes one at the wrong moment leaves a circulation in doubt. Neither
    follows redirects. Raises ValueError for an invalid URL, client, site list or document, and StateError for a state
    that cannot be used. Whatever the API does is reported, and so is a state that can no longer be saved once something
    was sent.
    """
    headers, rules = headers or {}, rules or Rules()
    _check_client(http, httpx.Client)
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=TIMEOUT, limits=LIMITS)) if http is None else http
        journal = stack.enter_context(_journal(state).circulating())
        steps = Conversation(url, document, headers, rules, journal, progress).steps(sites)
        _check_request(client, rules, url, headers)  # before anything is in the journal
        outcome: Outcome = None
        while True:
            step = steps.send(outcome)
            if isinstance(step, Report):
                return step
            if isinstance(step, Wait):
                time.sleep(_spread(step))
                outcome = None
            elif isinstance(step, Save):
                outcome = _save(journal, step.state)
            else:
                outcome = _ask_in_time(client, step)


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
    """Like ``circulate``, but async; cancelling it leaves the state correct."""
    headers, rules = headers or {}, rules or Rules()
    _check_client(http, httpx.AsyncClient)
    async with AsyncExitStack() as stack:
        client = (
            await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)) if http is None else http
        )
        journal = stack.enter_context(_journal(state).circulating())
        steps = Conversation(url, document, headers, rules, journal, progress).steps(sites)
        _check_request(client, rules, url, headers)  # before anything is in the journal
        outcome: Outcome = None
        while True:
            step = steps.send(outcome)
            if isinstance(step, Report):
                return step
            if isinstance(step, Wait):
                await anyio.sleep(_spread(step))
                outcome = None
            elif isinstance(step, Save):
                outcome = await _save_async(journal, step.state)
            else:
                outcome = await _ask_async(client, step)


def _journal(state: Journal | None) -> Journal:
    if state is None:
        return Journal()
    if not isinstance(state, Journal):
        raise ValueError(f"the state must be a Journal, a StateFile(path) for one, not {type(state).__name__}")
    return state


def _check_client(http: httpx.Client | httpx.AsyncClient | None, kind: type[object]) -> None:
    """Raise ValueError for a client that cannot send: a request that fails by it has its sites in doubt already."""
    if http is None:
        return
    if not isinstance(http, kind):
        raise ValueError(f"http must be an httpx.{kind.__name__}, not {type(http).__name__}")
    if http.is_closed:
        raise ValueError("http is a client that is closed")


def _check_request(
    client: httpx.Client | httpx.AsyncClient, rules: Rules, url: str, headers: Mapping[str, str]
) -> None:
    """Raise for a wrong URL (ValueError) or header."""
    expected = "expected http:// or https:// and a host, as in https://api.example/circulate-document"
    try:
        asked = client.build_request(rules.method, url, headers=headers).url
    except httpx.InvalidURL as error:
        raise ValueError(f"the URL cannot be read: {error}; {expected}") from error
    if asked.scheme not in ("http", "https") or not asked.host:
        raise ValueError(f"the URL is not the address of an API; {expected}")


def _save(journal: Journal, state: State) -> StateError | None:
    try:
        journal.save(state)
    except StateError as error:
        return error
    return None


async def _save_async(journal: Journal, state: State) -> StateError | None:
    try:
        await journal.save_async(state)
    except StateError as error:
        return error
    return None


def _ask(client: httpx.Client, request: Request) -> Outcome:
    body = bytearray()
    try:
        with client.stream(**_arguments(request, client.timeout)) as response:
            _bound_coding(response)
            for part in response.iter_bytes():
                _keep(body, part)
    except httpx.RequestError as error:
        return error
    return read_answer(response.status_code, response.headers, bytes(body), time.time())


def _ask_in_time(client: httpx.Client, request: Request) -> Outcome:
    """Ask, and wait no longer than the deadline.

    A server that sends a byte now and then outlasts every time-out of a socket, so the request runs in a thread of
    its own. Where the deadline passes it is left to itself, and ends with its connection.
    """
    if request.left_s is None:
        return _ask(client, request)
    answer: Future[Outcome] = Future()

    def run() -> None:
        try:
            answer.set_result(_ask(client, request))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=copy_context().run, args=(run,), daemon=True).start()
    wait([answer], request.left_s + GRACE_S)
    return answer.result() if answer.done() else None


async def _ask_async(client: httpx.AsyncClient, request: Request) -> Outcome:
    outcome: Outcome = None
    body = bytearray()
    with anyio.move_on_after(None if request.left_s is None else request.left_s + GRACE_S):
        try:
            async with client.stream(**_arguments(request, client.timeout)) as response:
                _bound_coding(response)
                async for part in response.aiter_bytes():
                    _keep(body, part)
            outcome = read_answer(response.status_code, response.headers, bytes(body), time.time())
        except httpx.RequestError as error:
            outcome = error
    return outcome


def _bound_coding(response: httpx.Response) -> None:
    """Unpack no body in several codings, or in one that was not asked for: some bytes could stand for gigabytes."""
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", *CODINGS):
        del response.headers["content-encoding"]


def _keep(body: bytearray, part: bytes) -> None:
    body += part[: MOST_BYTES - len(body)]


def _arguments(request: Request, timeout: httpx.Timeout) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "method": request.method,
        "url": request.url,
        "content": request.content,
        "headers": request.headers,
        "follow_redirects": False,  # the answer of another page, to a GET perhaps, tells nothing of the circulation
    }
    if request.left_s is None:
        return asked

    def least(own: float | None, bound: float) -> float:
        return bound if own is None else min(own, bound)

    left, late = request.left_s, request.left_s + 4 * GRACE_S  # late: only so that a thread left to itself ends
    bounded = httpx.Timeout(
        connect=least(timeout.connect, left),
        pool=least(timeout.pool, left),
        read=least(timeout.read, late),
        write=least(timeout.write, late),
    )
    return {**asked, "timeout": bounded}


def _spread(wait: Wait) -> float:
    return wait.seconds + wait.spread_s * random.random()  # noqa: S311 - spreads load, guards nothing
