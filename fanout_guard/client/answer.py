"""An HTTP answer, reduced to what the planner goes by: pure, and lenient with what it does not understand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, NamedTuple

import msgspec
from http_sf import parse
from http_sf.types import ParamsType
from msgspec import Meta, Struct

from fanout_guard.core.problem import BODY_TOO_LARGE, CAP_EXCEEDED, REDUCED_CAPACITY

MAX_DELAY_S = 366 * 86_400

Count = Annotated[int, Meta(ge=0)]


class Problem(Struct, frozen=True, rename={"violated": "violated-policies"}):
    """The members of a refusal's problem document (RFC 9457) that a client can act on."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    violated: tuple[str, ...] = ()
    limit: Count | None = None
    requested_sites: Count | None = None
    excess: Count | None = None
    used: Count | None = None
    fits_now: Count | None = None
    chunks: Count | None = None
    chunk_wait: Annotated[float, Meta(ge=0)] | None = None
    retry_after: Annotated[float, Meta(ge=0)] | None = None


class Room(NamedTuple):
    """One member of a RateLimit field that counts sites: how many are left, when more come back, how many are used."""

    policy: str
    remaining: int
    reset_s: int
    used: int


class Answer(Struct, frozen=True, kw_only=True):
    """One answer: ``largest`` is the largest circulation that the RateLimit policies allow."""

    status: int
    retry_after: float | None = None
    problem: Problem | None = None
    largest: int | None = None
    rooms: tuple[Room, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the API took the circulation."""
        return 200 <= self.status < 300

    @property
    def over_a_cap(self) -> bool:
        """Whether the circulation is too large ever to pass, by entries or by bytes."""
        return self.problem is not None and self.problem.type in (CAP_EXCEEDED, BODY_TOO_LARGE)

    @property
    def try_later(self) -> bool:
        """Whether it was refused for now, and certainly not delivered.

        A 503 that neither the guard wrote nor says when to come back may have been half-way through.
        """
        guarded = self.problem is not None and self.problem.type == REDUCED_CAPACITY
        return self.status == 429 or (self.status == 503 and (guarded or self.retry_after is not None))

    @property
    def uncertain(self) -> bool:
        """Whether the circulation may have been delivered, in whole or in part.

        A 303 names another page about it (RFC 9110, 15.4.4), and comes mostly after it was done.
        """
        return self.status >= 500 or self.status == 303


def read_answer(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """Read an answer; ``headers`` by lower-case name, ``now`` in seconds since 1970."""
    problem = _problem(headers.get("content-type", ""), body)
    told = retry_after(headers.get("retry-after", ""), headers.get("date", ""), now)
    if told is None and problem is not None:
        told = problem.retry_after
    quotas = _quotas(headers.get("ratelimit-policy", ""))
    return Answer(
        status=status,
        retry_after=told,
        problem=problem,
        largest=min(quotas.values(), default=None),
        rooms=tuple(_rooms(headers.get("ratelimit", ""), quotas)),
    )


def retry_after(value: str, date: str, now: float) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110, 10.2.3), or None if it says nothing readable.

    A date counts from the answer's own Date, so that the two clocks need not agree.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:12]), MAX_DELAY_S))
    until = _date(value)
    if until is None:
        return None
    since = _date(date)
    return min(max(until - (now if since is None else since), 0.0), MAX_DELAY_S)


def _date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware: datetime = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.timestamp()


def _problem(content_type: str, body: bytes) -> Problem | None:
    if content_type.partition(";")[0].strip().lower() != "application/problem+json":
        return None
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: nested too deeply to read
        return None


def _quotas(field: str) -> dict[str, int]:
    """The quota of each policy whose unit is sites; other limiters' policies are none of ours."""
    return {
        name: quota
        for name, parameters in _members(field)
        if parameters.get("qu") == "sites" and (quota := _count(parameters.get("q"))) is not None
    }


def _rooms(field: str, quotas: Mapping[str, int]) -> Iterator[Room]:
    for name, parameters in _members(field):
        remaining = _count(parameters.get("r"))
        if name in quotas and remaining is not None:
            yield Room(name, remaining, _count(parameters.get("t")) or 0, max(quotas[name] - remaining, 0))


def _members(field: str) -> Iterator[tuple[str, ParamsType]]:
    """The members of a list (RFC 9651) that are strings; a field that does not parse is ignored whole."""
    try:
        members = parse(field.encode("ascii"), tltype="list")
    except ValueError:
        return
    for member in members if isinstance(members, list) else ():
        if isinstance(member, tuple) and isinstance(member[0], str):
            yield member[0], member[1]


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
