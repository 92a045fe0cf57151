"""The frozen values that travel through one decision, and the enums that they use.

Structs are msgspec's: as strict as frozen dataclasses, several times cheaper to make, and made on every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

CIRCULATION = "circulation"
DOCUMENT = "document"
INFLIGHT = "inflight"
INFLIGHT_GLOBAL = "inflight-global"
OUTAGE = "outage"
"""What can refuse, by name; a rate's is ``Rate.policy``, and an outage refuses where nothing may pass uncounted."""
UNWATCHED = "unwatched"
"""In place of a reason: an outage counts as over because nobody watches it any more, be the server back or not."""

RENEWALS = 3
"""So many times a lease is renewed within its time to live."""

MAX_ENTRIES = 10**9
"""The largest cap, and the most entries of one circulation."""

MAX_SECONDS = 366 * 86_400
"""The longest window, lease or other time."""

_FLAGS = "01234567"


class Mode(StrEnum):
    """What the guard does with a circulation that is over a cap."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class Outcome(StrEnum):
    """How a guarded request ended at the guard; the values of the ``outcome`` label."""

    ADMITTED = "admitted"
    REJECTED = "rejected"
    SHADOWED = "shadowed"
    UNREADABLE = "unreadable"


OFF = Mode.OFF
ADMITTED = Outcome.ADMITTED
"""What every request is compared with, under short names: in Python 3.11, ``Mode.OFF`` costs a function call."""


class Spelling(NamedTuple):
    """A JSON value that is not a string, by its canonical text; never equal to a string of that text."""

    text: str


SiteKey: TypeAlias = str | Spelling
"""The identity of one site: a string by its characters, anything else by its spelling."""


Numbers: TypeAlias = tuple[int, int, tuple[int, ...], int, int]
"""Caps as the counters' scripts need them: document cap and window, each rate's limit and window, the two in-flight
caps; windows in milliseconds, -1 is no cap."""


class Rate(Struct, frozen=True):
    """At most ``limit`` entries of one tenant in any ``window_ms`` milliseconds."""

    limit: int
    window_ms: int
    policy: str = ""
    """The policy's name, with the window in whole seconds: ``rate-60``."""

    def __post_init__(self) -> None:
        force_setattr(self, "policy", f"rate-{self.window_ms // 1000}")


class Policy(Struct, frozen=True, kw_only=True, cache_hash=True):
    """The caps that hold for one tenant, all defaults filled in; ``None`` is no cap.

    The fields from ``least`` on follow from the others: they are computed on construction, whatever is passed for them.
    """

    mode: Mode = Mode.ENFORCE
    circulation: int | None = 300
    document: int | None = 300
    document_window_ms: int = 3_600_000
    rates: tuple[Rate, ...] = ()
    inflight: int | None = None
    inflight_global: int | None = None
    least: int | None = None
    """The smallest cap; a circulation of no more entries is within every cap by itself."""
    numbers: Numbers = (-1, 0, (), -1, -1)
    """What the counters' scripts need of it."""
    leased: bool = False
    """Whether an admitted circulation holds a lease."""
    counted: tuple[tuple[str, int], ...] = ()
    """The caps that need counters, with their limits, in the order in which counters answer."""

    def __post_init__(self) -> None:
        caps = (self.document, self.inflight, self.inflight_global)
        document, inflight, everybody = (-1 if cap is None else cap for cap in caps)
        rates = tuple(number for rate in self.rates for number in (rate.limit, rate.window_ms))
        limits = self.limits
        force_setattr(self, "least", min((limit for _, limit in limits), default=None))
        force_setattr(self, "numbers", (document, self.document_window_ms, rates, inflight, everybody))
        force_setattr(self, "leased", self.inflight is not None or self.inflight_global is not None)
        force_setattr(self, "counted", limits if self.circulation is None else limits[1:])

    @property
    def limits(self) -> tuple[tuple[str, int], ...]:
        """The caps that apply, with their limits."""
        named = (
            (CIRCULATION, self.circulation),
            (DOCUMENT, self.document),
            *((rate.policy, rate.limit) for rate in self.rates),
            (INFLIGHT, self.inflight),
            (INFLIGHT_GLOBAL, self.inflight_global),
        )
        return tuple((name, cap) for name, cap in named if cap is not None)


class Lease(Struct, frozen=True, gc=False):
    """What names a charge: enough to find every key that it touched, from any worker.

    Its text is the public ``lease_id``, opaque to callers; ``core.keys.parse_lease`` reads it. Scripts write it too.
    """

    id: bytes
    document: bytes = b""
    idempotency: bytes = b""
    local: bool = False

    def __str__(self) -> str:
        flags = self.local + 2 * bool(self.document) + 4 * bool(self.idempotency)
        return _FLAGS[flags] + (self.id + self.document + self.idempotency).decode()


class Charge(Struct, frozen=True, kw_only=True, gc=False):
    """One circulation as the counters see it.

    ``lease`` has the document's digest only where a document cap applies, and the idempotency key's where that counts.
    ``sites`` holds the distinct sites as little-endian doubles (8 bytes each, see ``core.digests``), empty where no
    document cap applies. ``cost`` is in entries. ``look`` asks how it would be decided and charges nothing.
    ``waited_s`` is how much of the decision's time budget has been used already.
    """

    lease: Lease
    tenant: str
    cost: int
    sites: bytes
    policy: Policy
    lease_ms: int
    look: bool = False
    waited_s: float = 0.0


class Part(NamedTuple):
    """What of a charge is taken back: so many entries, or some sites with the entries of each; all of it by default.

    ``sites`` are given as in ``Charge``, with ``counts`` the entries of each (empty: one each).
    """

    entries: int | None = None
    sites: bytes = b""
    counts: Sequence[int] = ()

    @property
    def whole(self) -> bool:
        """Whether it is all that is left of the charge."""
        return self.entries is None and not self.sites


WHOLE = Part()
NOTHING = Part(entries=0)


class Reading(Struct, frozen=True, gc=False):
    """One policy's state at the moment of a decision, before the charge.

    ``needed`` is what the circulation adds (new sites for ``document``, entries for the rest); ``wait_ms`` is the
    time until it would fit, 0 if it does; ``reset_ms`` is the time until some units come back, once the circulation is
    counted (its own if there are no others), and 0 if nothing is counted.
    """

    policy: str
    limit: int
    used: int
    needed: int
    wait_ms: int
    reset_ms: int

    @property
    def fits(self) -> bool:
        """Whether the circulation is within this policy."""
        return self.needed == 0 or self.used + self.needed <= self.limit


class Tally(Struct, frozen=True):
    """What the counters answer: whether everything was charged, and how every counted policy stood before.

    ``repeated`` marks an idempotency key whose charge already counts; ``expired`` is how many leases were found
    expired: each is reported by one decision, and by no look.
    """

    charged: bool
    readings: tuple[Reading, ...]
    repeated: bool = False
    expired: int = 0


class Decision(Struct, frozen=True, kw_only=True):
    """The answer to one circulation, with everything that a client, a log line or a metric needs.

    ``outcome`` is ``admitted``, ``rejected`` or ``shadowed``; ``admitted`` is True for the first and the last.
    ``requested`` counts the entries. ``policy`` is the cap that refused (in shadow mode: would have), or None;
    ``limit``, ``used`` and ``excess`` are its numbers. ``violated`` lists all such caps, and so does ``shadowed`` in
    shadow mode. ``fits_now`` is how many entries would be admitted now, ``chunks`` how many circulations it takes, and
    ``chunk_wait`` the whole seconds to leave between them; the last two are None if none can pass. ``retry_after`` is
    in whole seconds, None if waiting cannot help; ``permanent`` says that the circulation is larger than a cap.
    ``lease_id`` names the charge; ``leased`` says that it also holds entries in flight. ``degraded`` says that the
    shared counters were not reached, ``repeated`` that the charge of its idempotency key stands for it. ``caps`` is the
    tenant's policy, ``readings`` the state of every counted cap *after* this decision.
    """

    admitted: bool
    outcome: Outcome
    tenant: str
    document: str | None = None
    requested: int
    policy: str | None = None
    violated: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()
    limit: int | None = None
    used: int | None = None
    excess: int | None = None
    fits_now: int | None = None
    chunks: int | None = None
    chunk_wait: int | None = None
    retry_after: int | None = None
    permanent: bool = False
    lease: Lease | None = None
    leased: bool = False
    degraded: bool = False
    repeated: bool = False
    caps: Policy
    readings: tuple[Reading, ...] = ()

    @property
    def lease_id(self) -> str | None:
        """The id of the charge, for ``FanoutGuard.release``, ``renew`` and ``refund``; None if nothing was admitted."""
        return None if self.lease is None else str(self.lease)
