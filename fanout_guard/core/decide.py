"""From caps and the counters' tally to a decision: what refuses, what would fit, and when to come back.

Pure: whoever calls has asked the counters already, or knows that they cannot be asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from fanout_guard.core.model import (
    ADMITTED,
    DOCUMENT,
    INFLIGHT_GLOBAL,
    OUTAGE,
    Decision,
    Lease,
    Mode,
    Outcome,
    Policy,
    Reading,
    Tally,
)

OUTAGE_RETRY_S = 1

DOCUMENT_LATE = 1.5
"""A site is freed at most this many windows after it was last counted."""
RATE_LATE = 1.05
"""A charge is freed at most this many windows after it was made."""


class Asked(Struct, frozen=True, gc=False):
    """A circulation as far as a decision depends on it.

    ``distinct`` is the number of different sites where that may matter to the document cap, else ``entries`` again.
    """

    tenant: str
    document: str | None
    entries: int
    distinct: int


def precheck(policy: Policy, asked: Asked) -> tuple[tuple[str, int], ...]:
    """The caps, with their limits, that this circulation can never pass, however long it waits."""
    if policy.least is None or asked.entries <= policy.least:
        return ()
    return tuple(
        (name, limit)
        for name, limit in policy.limits
        if limit < (asked.distinct if name == DOCUMENT else asked.entries)
    )


def refuse_for_good(
    policy: Policy,
    asked: Asked,
    over: Sequence[tuple[str, int]],
    lease: Lease,
    readings: Sequence[Reading] = (),
) -> Decision:
    """The decision if ``precheck`` found something; ``readings``, where there are any, tell what else refuses."""
    chunks, wait = _chunks(policy, asked)
    named = dict(over)
    others = [reading for reading in _refusing(readings) if reading.policy not in named]
    first, limit = over[0]
    return _refused(
        policy,
        asked,
        (*named, *(reading.policy for reading in others)),
        lease,
        limit=limit,
        used=next((_used(each) for each in readings if each.policy == first), None),
        excess=(asked.distinct if first == DOCUMENT else asked.entries) - limit,
        fits_now=_fits_now(policy, asked, readings),
        chunks=chunks,
        chunk_wait=wait,
        permanent=True,
        readings=tuple(readings),
    )


def decide(policy: Policy, asked: Asked, tally: Tally, lease: Lease) -> Decision:
    """The decision from what the counters answered."""
    over = precheck(policy, asked)
    if over:
        return refuse_for_good(policy, asked, over, lease, tally.readings)
    if not tally.charged:
        return _refuse_for_now(policy, asked, tally.readings, lease)
    after = [
        Reading(each.policy, each.limit, each.used + each.needed, 0, each.wait_ms, each.reset_ms)
        for each in tally.readings
    ]
    return admit(
        policy,
        asked,
        lease,
        leased=policy.leased,
        repeated=tally.repeated,
        readings=tuple(after),
    )


def _refuse_for_now(policy: Policy, asked: Asked, readings: tuple[Reading, ...], lease: Lease) -> Decision:
    """The decision if a counter has no room, and will have some again."""
    refusing = _refusing(readings)
    first = refusing[0]
    used = _used(first)
    return _refused(
        policy,
        asked,
        tuple(reading.policy for reading in refusing),
        lease,
        limit=first.limit,
        used=used,
        excess=None if used is None else used + first.needed - first.limit,
        fits_now=_fits_now(policy, asked, readings),
        chunks=1,  # it is within every cap
        chunk_wait=0,
        retry_after=max(1, *(-(-reading.wait_ms // 1000) for reading in refusing)),
        readings=readings,
    )


def decide_uncounted(policy: Policy, asked: Asked, lease: Lease, *, admits: bool) -> Decision:
    """The decision if the counters are out of reach and none stand in for them.

    What is larger than a cap is refused also where an outage ``admits``.
    """
    over = precheck(policy, asked)
    if over:
        return refuse_for_good(policy, asked, over, lease)
    return admit(policy, asked, lease) if admits else refuse_in_outage(policy, asked, lease)


def refuse_in_outage(policy: Policy, asked: Asked, lease: Lease) -> Decision:
    """The decision if the counters are out of reach and nothing may pass uncounted."""
    return _refused(policy, asked, (OUTAGE,), lease, retry_after=OUTAGE_RETRY_S)


def admit(
    policy: Policy,
    asked: Asked,
    lease: Lease,
    *,
    leased: bool = False,
    repeated: bool = False,
    readings: tuple[Reading, ...] = (),
) -> Decision:
    """The decision to admit; without ``readings``, no counter had a say in it."""
    return Decision(
        admitted=True,
        outcome=ADMITTED,
        tenant=asked.tenant,
        document=asked.document,
        requested=asked.entries,
        lease=lease,
        leased=leased,
        repeated=repeated,
        caps=policy,
        readings=readings,
    )


def _refused(
    policy: Policy,
    asked: Asked,
    violated: tuple[str, ...],
    lease: Lease,
    *,
    limit: int | None = None,
    used: int | None = None,
    excess: int | None = None,
    fits_now: int | None = None,
    chunks: int | None = None,
    chunk_wait: int | None = None,
    retry_after: int | None = None,
    permanent: bool = False,
    readings: tuple[Reading, ...] = (),
) -> Decision:
    """A refusal, or in shadow mode an admission that says what would have refused and charged nothing."""
    enforced = policy.mode is Mode.ENFORCE
    return Decision(
        admitted=not enforced,
        outcome=Outcome.REJECTED if enforced else Outcome.SHADOWED,
        tenant=asked.tenant,
        document=asked.document,
        requested=asked.entries,
        policy=violated[0],
        violated=violated,
        shadowed=() if enforced else violated,
        limit=limit,
        used=used,
        excess=excess,
        fits_now=fits_now,
        chunks=chunks,
        chunk_wait=chunk_wait,
        retry_after=retry_after,
        permanent=permanent,
        lease=None if enforced else lease,
        caps=policy,
        readings=readings,
    )


def _used(reading: Reading) -> int | None:
    """What counts under a cap; None where that is what all tenants have in flight, which is no tenant's business."""
    return None if reading.policy == INFLIGHT_GLOBAL else reading.used


def _refusing(readings: Sequence[Reading]) -> list[Reading]:
    """The readings that refuse: those answered with 429 first, then the one answered with 503."""
    return sorted((each for each in readings if not each.fits), key=lambda each: each.policy == INFLIGHT_GLOBAL)


def _fits_now(policy: Policy, asked: Asked, readings: Sequence[Reading]) -> int:
    rooms = (max(reading.limit - reading.used, 0) for reading in readings if not _fits_in_part(reading, asked))
    return min(_chunk_size(policy, asked), asked.entries, *rooms)


def _fits_in_part(reading: Reading, asked: Asked) -> bool:
    """Whether this is a document cap that admits any part of the circulation: sites it knows already need no room."""
    return reading.policy == DOCUMENT and reading.fits and asked.distinct <= reading.limit


def _chunk_size(policy: Policy, asked: Asked) -> int:
    """The most entries that a single circulation can have under all caps.

    A document cap counts only if the circulation has more distinct sites: otherwise no part of it has too many of them.
    """
    bounds = (limit for name, limit in policy.limits if name != DOCUMENT or asked.distinct > limit)
    return min(bounds, default=asked.entries)


def _chunks(policy: Policy, asked: Asked) -> tuple[int | None, int | None]:
    """How many circulations it takes, and the seconds to leave between them; None where none can pass."""
    size = _chunk_size(policy, asked)
    if size == 0:
        return None, None
    waits_ms = [0.0]
    if policy.document is not None and asked.distinct > policy.document:
        waits_ms.append(DOCUMENT_LATE * policy.document_window_ms / (policy.document // size))
    waits_ms += [
        RATE_LATE * rate.window_ms / (rate.limit // size) for rate in policy.rates if asked.entries > rate.limit
    ]
    return -(-asked.entries // size), math.ceil(round(max(waits_ms), 3) / 1000)
