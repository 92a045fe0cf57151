"""Refusals as problem documents (RFC 9457): what is wrong, and how to succeed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from msgspec import json as msgspec_json

from fanout_guard.core.model import CIRCULATION, INFLIGHT_GLOBAL, OUTAGE, Decision
from fanout_guard.core.words import plural

MEDIA_TYPE = b"application/problem+json"

_OWN = "urn:problem-type:fanout-guard:"
CAP_EXCEEDED = f"{_OWN}circulation-cap-exceeded"
BODY_TOO_LARGE = f"{_OWN}body-too-large"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

UnreadableKind: TypeAlias = Literal[
    "unreadable-circulation", "tenant-unidentified", "tenant-unknown", "body-too-large", "unsupported-encoding"
]
"""Why a request is refused before a decision: the last part of the problem type."""

_UNREADABLE: Mapping[UnreadableKind, tuple[int, str]] = {
    "unreadable-circulation": (400, "The circulation cannot be read"),
    "tenant-unidentified": (400, "The tenant cannot be identified"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-encoding": (415, "The body's encoding is not supported"),
    "tenant-unknown": (403, "The tenant is not known"),
}
_TITLES = {
    CAP_EXCEEDED: "Too many sites for one circulation",
    QUOTA_EXCEEDED: "Too many sites for now",
    REDUCED_CAPACITY: "No capacity for this circulation right now",
}

_encode = msgspec_json.Encoder().encode


class Problem(Struct, frozen=True):
    """An answer ready to be sent."""

    status: int
    body: bytes
    retry_after: int | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The fields of this answer, without those of rate limits."""
        fields = [
            (b"content-type", MEDIA_TYPE),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if self.retry_after is not None:
            fields.append((b"retry-after", str(self.retry_after).encode()))
        return fields


def unreadable(kind: UnreadableKind, detail: str) -> Problem:
    """The answer to a request that cannot be decided on."""
    status, title = _UNREADABLE[kind]
    return _problem(f"{_OWN}{kind}", status, title, detail, {})


def unavailable(detail: str) -> Problem:
    """The answer where the guard itself could not tell what was asked: never a 500."""
    return _problem(REDUCED_CAPACITY, 503, _TITLES[REDUCED_CAPACITY], detail, {"retry_after": 1})


def refusal(decision: Decision, reject_status: int) -> Problem:
    """The answer to a circulation that was rejected."""
    if decision.permanent:
        kind, status = CAP_EXCEEDED, reject_status
    elif decision.policy in (INFLIGHT_GLOBAL, OUTAGE):
        kind, status = REDUCED_CAPACITY, 503
    else:
        kind, status = QUOTA_EXCEEDED, 429
    members: dict[str, Any] = {
        "violated-policies": decision.violated,
        "limit": decision.limit,
        "requested_sites": decision.requested,
        "excess": decision.excess,
        "used": decision.used,
        "fits_now": decision.fits_now,
        "chunks": decision.chunks,
        "chunk_wait": decision.chunk_wait,
        "retry_after": decision.retry_after,
    }
    return _problem(kind, status, _TITLES[kind], _advice(decision), members)


def _problem(kind: str, status: int, title: str, detail: str, members: Mapping[str, Any]) -> Problem:
    document = {"type": kind, "title": title, "status": status, "detail": detail}
    document.update((name, value) for name, value in members.items() if value is not None)
    return Problem(status, _encode(document), members.get("retry_after"))


def _advice(decision: Decision) -> str:
    if decision.policy == OUTAGE:
        return f"The counters cannot be reached. Send it again in {_seconds(decision.retry_after)}."
    if decision.policy == INFLIGHT_GLOBAL and not decision.permanent:
        return f"Too many sites are being circulated to at once. Send it again in {_seconds(decision.retry_after)}."
    used = 0 if decision.permanent else decision.used or 0
    added = (decision.limit or 0) + (decision.excess or 0) - used  # as the cap counts: a document's, each new site once
    asked, are = plural(added, "site"), "is" if added == 1 else "are"
    if decision.permanent:
        may = "one circulation may have" if decision.policy == CIRCULATION else f"the cap {decision.policy!r} allows"
        over = f"{asked} {are} more than the {decision.limit} that {may}"
        if decision.chunks is None:
            return f"{over}; no circulation with sites can pass."
        return f"{over}. Send {_circulations(decision)}."
    over = (
        f"{asked} on top of the {used} already counted {are} more than the {decision.limit} "
        f"that the cap {decision.policy!r} allows"
    )
    now = f"send at most {decision.fits_now} now, or " if decision.fits_now else ""
    return f"{over}: {now}send it again in {_seconds(decision.retry_after)}."


def _circulations(decision: Decision) -> str:
    pause = f", {_seconds(decision.chunk_wait)} apart" if decision.chunk_wait else ""
    chunks = decision.chunks or 1
    # A smaller limit is a document cap that does not bound them, since the entries repeat their sites.
    most = min(limit for _, limit in decision.caps.limits if limit * chunks >= decision.requested)
    return f"it as {chunks} circulations of at most {most} each{pause}"


def _seconds(seconds: int | None) -> str:
    return plural(seconds, "second")
