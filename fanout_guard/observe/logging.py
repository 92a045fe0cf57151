"""What the guard writes to the logger ``fanout_guard``: rejections, sampled, and both ends of an outage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fanout_guard.core.model import ADMITTED, UNWATCHED, Decision, Outcome
from fanout_guard.log import logger
from fanout_guard.observe.hooks import NO_ANSWER, REASONS, UNREADABLE, Observer
from fanout_guard.observe.sampling import Sampler
from fanout_guard.observe.text import printable, quoted

_ONE_TENANT = ("wrongtype", "script")

_CONSEQUENCES = {
    "local": "this process decides by its own counters",
    "open": "circulations are admitted without counting",
    "closed": "circulations are refused with 503",
}


class LogObserver(Observer):
    """One structured record per rejection (the first few per second and policy); a line per end of an outage.

    If an outage goes on for a reason that asks for something else (a password that is wrong, say), one line for that.

    A record carries its numbers as attributes too (``record.policy``, ``record.limit``, …), for JSON.
    Text that a client chose is escaped in both, so that no formatter writes it as a second line.
    """

    def __init__(self, *, on_outage: str = "", burst: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._consequence = _CONSEQUENCES.get(on_outage, "")
        self._sampler = Sampler(burst=burst, clock=clock)
        self._clock = clock
        self._outage: tuple[float, str] | None = None
        self._reasons: set[str] = set()  # those of this outage that were told

    def decided(self, decision: Decision, seconds: float) -> None:
        if not self._sampler.idle:
            self._summarise()
        if decision.outcome is ADMITTED:
            return
        fields = _fields(decision)
        if self._sampler.passes(str(fields["policy"])):
            _write(f"circulation {decision.outcome}", f"circulation-{decision.outcome}", fields)

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        self._summarise()
        kind = kind if kind in UNREADABLE else "other"
        if self._sampler.passes(kind):
            fields = {
                "outcome": str(Outcome.UNREADABLE),
                "tenant": None if tenant is None else printable(tenant),
                "policy": kind,
                "detail": printable(detail),
            }
            _write("request unreadable", "request-unreadable", fields)

    def outage(self, active: bool, reason: str) -> None:
        if active and self._outage is None:
            self._outage_begins(reason if reason in REASONS else "other")
        elif not active and self._outage is not None:
            self._outage_ends(*self._outage, seen=reason != UNWATCHED)

    def counter_error(self, reason: str) -> None:
        # The other reasons end in an outage, which has a line of its own.
        if reason in _ONE_TENANT:
            if self._sampler.passes(f"counters-{reason}"):
                extra = {"event": "counters-unreadable", "reason": reason}
                what = "the counters of a tenant cannot be read (%s): decided as in an outage"
                logger.error(what, reason, extra=extra)
        elif self._outage is not None:
            self._outage_goes_on(reason if reason in REASONS else "other")

    def close(self) -> None:
        self._summarise(at_once=True)

    def _outage_begins(self, reason: str) -> None:
        self._outage = (self._clock(), reason)
        self._reasons = {reason}
        consequence = f"; until it ends, {self._consequence}" if self._consequence else ""
        extra = {"event": "outage-began", "reason": reason}
        logger.error("outage began: counters out of reach (%s)%s", reason, consequence, extra=extra)

    def _outage_goes_on(self, reason: str) -> None:
        # Those may follow each other while a server is down or starts, and ask for nothing new.
        if reason not in NO_ANSWER and reason not in self._reasons:
            self._reasons.add(reason)
            extra = {"event": "outage-goes-on", "reason": reason}
            logger.error("outage goes on for another reason (%s)", reason, extra=extra)

    def _outage_ends(self, began: float, reason: str, *, seen: bool) -> None:
        self._outage = None
        seconds = round(self._clock() - began, 3)
        extra = {"event": "outage-ended" if seen else "outage-unwatched", "reason": reason, "seconds": seconds}
        what = "ended" if seen else "no longer watched, and not seen to end,"
        logger.warning("outage %s after %s s (%s)", what, seconds, reason, extra=extra)

    def _summarise(self, *, at_once: bool = False) -> None:
        for policy, count in self._sampler.missed(at_once=at_once).items():
            extra = {"event": "rejections-not-logged", "policy": policy, "count": count}
            logger.warning("%d more of %s, not logged one by one", count, policy, extra=extra)


def _fields(decision: Decision) -> dict[str, object]:
    return {
        "outcome": str(decision.outcome),
        "tenant": printable(decision.tenant),
        "document": None if decision.document is None else printable(decision.document),
        "policy": printable(decision.policy or ""),
        "violated_policies": [printable(policy) for policy in decision.violated],
        "limit": decision.limit,
        "used": decision.used,
        "requested_sites": decision.requested,
        "fits_now": decision.fits_now,
        "retry_after": decision.retry_after,
        "degraded": decision.degraded,
    }


def _write(what: str, event: str, fields: Mapping[str, object]) -> None:
    said = " ".join(f"{name}={quoted(value)}" for name, value in fields.items() if _worth_saying(name, value))
    logger.warning("%s: %s", what, said, extra={"event": event, **fields})


def _worth_saying(name: str, value: object) -> bool:
    return value is not None and value is not False and name not in ("outcome", "violated_policies")
