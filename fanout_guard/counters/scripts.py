"""The scripts, their arguments and their answers; no connection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files
from secrets import randbits
from struct import Struct, pack
from typing import Any, NamedTuple, TypeAlias

from msgspec import ValidationError, convert, msgpack

from fanout_guard.core.keys import (
    CHARGE_KEY,
    DOCUMENT_KEY,
    IDEMPOTENCY_KEY,
    LEASES_KEY,
    RATES_KEY,
    REFUNDED_KEY,
    KeySpace,
    new_id,
)
from fanout_guard.core.model import WHOLE, Charge, Lease, Numbers, Part, Reading, Tally
from fanout_guard.counters.reasons import reason_of_text
from fanout_guard.errors import CountersUnavailable

_encode = msgpack.Encoder().encode
_decode_decided = msgpack.Decoder(list[list[int]]).decode
_decode_failed = msgpack.Decoder(list[list[int | str]]).decode

RECORD, DOCUMENT, RATES, LEASES, IDEMPOTENCY, GLOBAL, SITES = 1, 2, 4, 8, 16, 32, 64
"""What a request to ``decide.lua`` has, as its flags."""

REFUSED, CHARGED, CHARGED_BEFORE, UNDONE, REPEATS = 0, 1, 2, 3, 4
"""What ``decide.lua`` answers, as its statuses."""
FAILED = -1
"""In place of an answer, from any script: an error's text follows."""
_STATUSES = (REFUSED, CHARGED, CHARGED_BEFORE, REPEATS)
_MANY = 10**9
DECISIONS_TO_SETTLE = 3
"""After so many about the same sites, these stay where they are in a document's set. To write that takes a right of its
own (SETRANGE), so whatever tries the scripts out decides as often."""
_ONE_REQUEST = ("wrongtype", "script")  # reasons that lie in one tenant's keys, not in the server

Packed: TypeAlias = tuple[list[bytes], tuple[Any, ...], bytes]
"""One request: its keys, its arguments, and its sites."""

CALL_WEIGHT = 1000
"""The most that the requests of one call weigh together: the server does nothing else meanwhile. A heavier one goes
alone."""


class Script(NamedTuple):
    """A script with the digest by which the server knows it."""

    text: bytes
    sha: bytes


# The kinds of state that each script opens, with the flags of which a request needs one for that (0: always).
_KINDS = {
    "decide": ((DOCUMENT, "sites"), (DOCUMENT, "documents"), (RATES, "rates"), (LEASES | GLOBAL, "leases")),
    "refund": ((0, "sites"), (0, "rates"), (0, "leases"), (0, "members")),
    "release": ((0, "leases"), (0, "members")),
    "override": (),
}
# Read beforehand, and not in the time of a decision.
_PARTS = {
    part: (files("fanout_guard.counters") / "lua" / f"{part}.lua").read_bytes()
    for part in {"state", *_KINDS, *(part for kinds in _KINDS.values() for _, part in kinds)}
}
_WHICH_CAPS = Struct("<H").pack
_DECISION = Struct("<BQQ").pack


@cache
def script(name: str, flags: int = 0) -> Script:
    """The script ``lua/<name>.lua``, after what all share and the kinds of state that it, or its ``flags``, touch."""
    kinds = [kind for needed, kind in _KINDS[name] if not needed or needed & flags]
    text = b"\n".join(_PARTS[part] for part in ("state", *kinds, name))
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


def weight(request: Packed) -> int:
    """About how many microseconds of the server's time a request takes."""
    return 4 + len(request[2]) // 32


class Call(NamedTuple):
    """One script call, ready for the wire."""

    script: Script
    keys: list[bytes]
    arguments: list[bytes]


def join(name: str, requests: Sequence[Packed], everybody: bytes | None) -> Call:
    """The call for a batch of packed requests; ``everybody`` is the global leases' key where it is in this batch.

    Caps that requests have in common are sent once.
    """
    keys = [everybody] if everybody else []
    for own, _, _ in requests:
        keys += own
    sites = [some for _, _, some in requests if some]
    flag = b"1" if everybody else b"0"
    if name != "decide":
        return Call(script(name), keys, [_encode([fields for _, fields, _ in requests]), flag, *sites])
    caps: dict[Numbers, bytes] = {}
    told: list[bytes] = []
    flags, last = 0, None
    for _, (own, fields), _ in requests:
        if own is not last:  # mostly it is the same, and the same object
            last, which = own, caps.get(own) or caps.setdefault(own, _WHICH_CAPS(len(caps) + 1))
        told += which, fields
        flags |= fields[0]
    needed = flags & (DOCUMENT | RATES | LEASES | GLOBAL)
    return Call(script(name, needed), keys, [b"".join(map(_packed_caps, caps)), flag, b"".join(told), *sites])


@lru_cache(maxsize=1024)
def _packed_caps(numbers: Numbers) -> bytes:
    document, window, rates, inflight, everybody = numbers
    return pack(f"<B{4 + len(rates)}q", len(rates) // 2, document, window, inflight, everybody, *rates)


def answers(name: str, reply: Any) -> list[Any]:
    """What the script ``name`` answers to each request, or CountersUnavailable where it could not do it.

    ValueError, TypeError or LookupError where no script of ours answers so: something else stands there.
    """
    if name != "decide":
        if reply.__class__ is not list:
            raise TypeError
        return [answer if answer.__class__ is int else _failed(answer) for answer in reply]
    try:
        decided = _decode_decided(reply)
        if FAILED not in [answer[0] for answer in decided]:
            return decided
    except ValidationError:
        pass  # an error's text is among them
    return [_failed(answer) if answer[0] == FAILED else convert(answer, list[int]) for answer in _decode_failed(reply)]


def pack_decide(charge: Charge, space: KeySpace) -> Packed:
    """A charge as ``decide.lua`` reads it."""
    policy, lease = charge.policy, charge.lease
    stem = space.of(charge.tenant)
    keys = []
    flags = 0
    own = lease.id
    if not charge.look:
        flags = RECORD
        keys.append(stem + CHARGE_KEY + own)
    if policy.document is not None and lease.document:
        flags |= DOCUMENT
        keys.append(stem + DOCUMENT_KEY + lease.document)
    if policy.rates:
        flags |= RATES
        keys.append(stem + RATES_KEY)
    if policy.leased:
        flags |= LEASES
        keys.append(stem + LEASES_KEY)
    if lease.idempotency:
        flags |= IDEMPOTENCY
        keys.append(stem + IDEMPOTENCY_KEY + lease.idempotency)
    if policy.inflight_global is not None:
        flags |= GLOBAL
    if charge.sites:
        flags |= SITES
    return keys, (policy.numbers, _DECISION(flags, charge.cost, charge.lease_ms)), charge.sites


def _failed(answer: Any) -> CountersUnavailable:
    if answer.__class__ is not list or answer[0] != FAILED:
        raise ValueError
    reason = reason_of_text(answer[1])
    return CountersUnavailable(reason, alone=reason in _ONE_REQUEST)


def tally(charge: Charge, answer: Sequence[int]) -> Tally:
    """What ``decide.lua`` answered; CountersUnavailable where the decision had been given up before it came."""
    status = answer[0]
    policy = charge.policy
    caps = policy.counted
    if policy.document is not None and not charge.lease.document:
        caps = caps[1:]  # a look at no document in particular: its cap, the first, was not asked for
    if status not in _STATUSES or len(answer) != 2 + 4 * len(caps):
        if status == UNDONE:
            raise CountersUnavailable("timeout", alone=True)
        raise CountersUnavailable("other")  # not what was asked: something else stands there
    readings, at = [], 2
    for name, limit in caps:
        readings.append(Reading(name, limit, answer[at], answer[at + 1], answer[at + 2], answer[at + 3]))
        at += 4
    return Tally(status != REFUSED, tuple(readings), status == REPEATS, answer[1])


def pack_probe(stem: bytes) -> list[Packed]:
    """Decisions about one entry, under names of their own, that read and write all kinds of state in every way."""
    numbers: Numbers = (1, 1000, (_MANY, 1000), _MANY, -1)
    fields = (numbers, _DECISION(RECORD | DOCUMENT | RATES | LEASES | SITES, 1, 1))
    own, shared = stem + b"p:", [stem + b"pd", stem + b"pr", stem + b"pf"]
    return [([own + new_id(), *shared], fields, bytes(8)) for _ in range(DECISIONS_TO_SETTLE)]


def is_undo(refund: Packed) -> bool:
    """Whether a refund takes back a decision that nobody has got."""
    return bool(refund[1][-1])


def stem_of(request: Packed) -> bytes:
    """What all keys of the request's tenant begin with, its hash tag included."""
    key = request[0][0]
    return key[: key.rindex(b"}:") + 2]


def pack_release(tenant: str, lease: Lease, space: KeySpace) -> Packed:
    """A release as ``release.lua`` reads it."""
    stem = space.of(tenant)
    return [stem + CHARGE_KEY + lease.id, stem + LEASES_KEY], (str(lease),), b""


def pack_renewal(tenant: str, lease: Lease, space: KeySpace, lease_ms: int, *, exact: bool) -> Packed:
    """A renewal as ``release.lua`` reads it."""
    stem = space.of(tenant)
    keys = [stem + CHARGE_KEY + lease.id, stem + LEASES_KEY, stem + REFUNDED_KEY + lease.id]
    return keys, (str(lease), lease_ms, int(exact)), b""


def pack_refund(tenant: str, lease: Lease, space: KeySpace, part: Part = WHOLE, *, undo: bool = False) -> Packed:
    """A refund as ``refund.lua`` reads it."""
    stem = space.of(tenant)
    own = lease.id
    keys = [
        stem + CHARGE_KEY + own,
        stem + REFUNDED_KEY + own,
        stem + DOCUMENT_KEY + lease.document,
        stem + RATES_KEY,
        stem + LEASES_KEY,
        stem + IDEMPOTENCY_KEY + lease.idempotency,
    ]
    entries, sites, counts = part
    if entries is not None and not sites:
        # As a site of its own, which the server takes back once, however often it is asked.
        sites, counts = pack("<d", randbits(53)), (entries,)
    fields = (str(lease), 1 if sites else 0, counts, int(undo))
    return keys, fields, sites
