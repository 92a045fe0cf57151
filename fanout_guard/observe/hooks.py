"""What the guard tells those that watch it, and why none of them can stop a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from inspect import isawaitable
from typing import Any, TypeAlias, get_args

from fanout_guard.core.model import Decision
from fanout_guard.core.problem import UnreadableKind
from fanout_guard.observe.failures import HOOK_WAIT_S, Failures, check_hook, must_pass
from fanout_guard.observe.text import where

OnDecision: TypeAlias = Callable[[Decision], object]
"""A user's ``on_decision=``: sync or async, called once per decision; what it returns is ignored."""


class Observer:
    """Something that watches the guard. Its methods run on the request path: cheap, and never blocking.

    Inherit from it and override what is of interest; the rest does nothing, and is not even called.
    """

    def decided(self, decision: Decision, seconds: float) -> None:
        """One circulation was decided on, in ``seconds``."""

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        """One request was refused before a decision; ``kind`` is one of ``UNREADABLE``.

        ``detail`` is what its client is told, ``tenant`` whom it names, as far as that was read.
        """

    def refunded(self, entries: int) -> None:
        """Entries of an admitted circulation were taken back."""

    def leases_expired(self, count: int) -> None:
        """Leases ended because nobody returned them."""

    def inflight(self, delta: int) -> None:
        """The entries in flight in this process changed by ``delta``."""

    def outage(self, active: bool, reason: str) -> None:
        """An outage began, or ended; told at the edges only. ``reason`` is one of ``REASONS``.

        At the end it may be UNWATCHED: nobody looks any more (the guard was closed, say), and nobody has seen the end.
        """

    def counter_error(self, reason: str) -> None:
        """The counters failed to answer one call, or an outage goes on for another reason; one of ``REASONS``."""

    def close(self) -> None:
        """The guard is being closed: write what is held back."""


UNREADABLE: tuple[str, ...] = get_args(UnreadableKind)
"""Why a request is refused before a decision. All else is ``other``."""

REASONS = (
    "timeout",
    "connection",
    "auth",
    "noperm",
    "readonly",
    "loading",
    "oom",
    "wrongtype",
    "busy",
    "noscript",
    "cluster",
    "version",
    "script",
    "other",
)
"""Why counters failed: few and fixed, since each becomes the value of a label."""

NO_ANSWER = ("connection", "timeout", "loading", "busy")
"""Those that say no more than that the server does not answer."""


class DecisionHook:
    """A user's ``on_decision=``: awaited if it is async, cancelled if it hangs; its errors are logged, never raised."""

    def __init__(self, call: OnDecision) -> None:
        check_hook("on_decision=", call)
        self._call = call
        self._failures = Failures()

    async def __call__(self, decision: Decision) -> None:
        patience = asyncio.timeout(HOOK_WAIT_S)
        try:
            result = self._call(decision)
            if isawaitable(result):
                async with patience:
                    await result
        except BaseException as error:
            if must_pass(error):
                raise
            hangs = isinstance(error, TimeoutError) and patience.expired()
            self._failures.log("on_decision", f"no answer within {HOOK_WAIT_S:g} s" if hangs else where(error))


class Observers:
    """Tells every observer, in order; an error of one is logged and stops neither the others nor the request.

    ``hook`` is the user's ``on_decision=``, for the caller to await; None if there is none.
    """

    def __init__(self, observers: Iterable[Observer] = (), on_decision: OnDecision | None = None) -> None:
        watching = tuple(observers)
        self.hook = None if on_decision is None else DecisionHook(on_decision)
        self._failures = Failures()
        self._decided = _overridden(watching, "decided")
        self._unreadable = _overridden(watching, "unreadable")
        self._refunded = _overridden(watching, "refunded")
        self._leases_expired = _overridden(watching, "leases_expired")
        self._inflight = _overridden(watching, "inflight")
        self._outage = _overridden(watching, "outage")
        self._counter_error = _overridden(watching, "counter_error")
        self._close = _overridden(watching, "close")
        self.count_inflight = bool(self._inflight)
        """Whether anybody wants to know what is in flight."""

    def decided(self, decision: Decision, seconds: float) -> None:
        """Tell of one decision."""
        self._tell(self._decided, decision, seconds)

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        """Tell of one request refused before a decision."""
        self._tell(self._unreadable, kind, detail, tenant)

    def refunded(self, entries: int) -> None:
        """Tell of entries taken back."""
        self._tell(self._refunded, entries)

    def leases_expired(self, count: int) -> None:
        """Tell of leases that nobody returned."""
        self._tell(self._leases_expired, count)

    def inflight(self, delta: int) -> None:
        """Tell of entries that went in flight or came back."""
        self._tell(self._inflight, delta)

    def outage(self, active: bool, reason: str) -> None:
        """Tell that an outage began or ended."""
        self._tell(self._outage, active, reason)

    def counter_error(self, reason: str) -> None:
        """Tell of one failed call to the counters."""
        self._tell(self._counter_error, reason)

    def close(self) -> None:
        """Tell that the guard is being closed."""
        self._tell(self._close)

    def _tell(self, methods: tuple[Callable[..., None], ...], *told: Any) -> None:
        for method in methods:
            try:
                method(*told)
            except Exception as error:
                self._failures.log(getattr(method, "__qualname__", "observer"), where(error))


def _overridden(observers: tuple[Observer, ...], name: str) -> tuple[Callable[..., None], ...]:
    """The bound methods of that name, without those that were left as they are in ``Observer``."""
    inherited = getattr(Observer, name)
    return tuple(getattr(one, name) for one in observers if getattr(type(one), name, None) is not inherited)
