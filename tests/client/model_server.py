"""A pure model of an API behind the guard: the caps as the contract words them, a clock that tests move."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from fanout_guard.client.answer import Answer, read_answer

CAP_EXCEEDED = "urn:problem-type:fanout-guard:circulation-cap-exceeded"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(kw_only=True)
class ModelServer:
    """One tenant's caps and what was delivered; windows in seconds, ``rate`` (limit, window) or none."""

    max_sites: int = 300
    document: int | None = 300
    document_window: float = 3600.0
    rate: tuple[int, float] | None = None
    fields: bool = True
    now: float = 0.0
    delivered: Counter[str] = field(default_factory=Counter)
    reached: dict[str, float] = field(default_factory=dict)
    charges: list[tuple[float, int]] = field(default_factory=list)

    def post(self, body: bytes) -> Answer:
        """Answer a request as HTTP would carry it, so that reading it is part of the model."""
        status, headers, content = self.answer(json.loads(body)["target_sites"])
        return read_answer(status, headers, content, self.now)

    def answer(self, sites: list[str]) -> tuple[int, dict[str, str], bytes]:
        """Decide, deliver if admitted, and say it as the contract does."""
        size = min(limit for _, limit in self.limits())
        over = [(name, limit) for name, limit in self.limits() if len(sites) > limit]
        if over:
            return self._refuse(422, CAP_EXCEEDED, over, sites, fits_now=size)
        used = self.used()
        full = [(name, limit) for name, limit in self.limits() if used[name] + self.needed(name, sites) > limit]
        if full:
            fits_now = min(limit - used[name] for name, limit in self.limits())
            wait = max(self.wait_s(name, limit, sites) for name, limit in full)
            return self._refuse(429, QUOTA_EXCEEDED, full, sites, fits_now=fits_now, retry_after=wait)
        self._charge(sites)
        self.delivered.update(sites)
        return 200, self._fields() if self.fields else {}, b'{"delivered": true}'

    def limits(self) -> list[tuple[str, int]]:
        """Every cap with its name, the circulation cap first."""
        limits = [("circulation", self.max_sites)]
        limits += [("document", self.document)] if self.document is not None else []
        return limits + ([(f"rate-{self.rate[1]:g}", self.rate[0])] if self.rate else [])

    def used(self) -> dict[str, int]:
        """What counts now, under each cap."""
        document = sum(end > self.now for end in self.reached.values())
        rate = sum(cost for end, cost in self.charges if end > self.now)
        return {name: {"c": 0, "d": document, "r": rate}[name[0]] for name, _ in self.limits()}

    def needed(self, name: str, sites: list[str]) -> int:
        """What a circulation adds: new sites under the document cap, else entries."""
        if name != "document":
            return len(sites)
        return sum(self.reached.get(site, 0.0) <= self.now for site in sites)

    def wait_s(self, name: str, limit: int, sites: list[str]) -> int:
        """Whole seconds until enough has freed, at least 1."""
        ends = sorted(self.reached.values()) if name == "document" else sorted(self._entries())
        ends = [end for end in ends if end > self.now]
        too_many = len(ends) + self.needed(name, sites) - limit
        return max(1, ceil(ends[too_many - 1] - self.now))

    def _entries(self) -> list[float]:
        return [end for end, cost in self.charges for _ in range(cost)]

    def _charge(self, sites: list[str]) -> None:
        end = _end(self.now, self.document_window, parts=2)
        self.reached.update(dict.fromkeys(sites, end))
        if self.rate:
            self.charges.append((_end(self.now, self.rate[1], parts=20), len(sites)))

    def _refuse(
        self, status: int, kind: str, over: list[tuple[str, int]], sites: list[str], **members: int
    ) -> tuple[int, dict[str, str], bytes]:
        size = min(limit for _, limit in self.limits())
        problem: dict[str, Any] = {
            "type": kind,
            "title": "Too many sites",
            "status": status,
            "violated-policies": [name for name, _ in over],
            "limit": over[0][1],
            "requested_sites": len(sites),
            "chunks": ceil(len(sites) / size) if size else None,
            "chunk_wait": self.longest_wait_s() if size else None,
            **members,
        }
        headers = {"content-type": "application/problem+json"}
        if "retry_after" in members:
            headers["retry-after"] = str(members["retry_after"])
        content = {name: value for name, value in problem.items() if value is not None}
        return status, headers | (self._fields() if self.fields else {}), json.dumps(content).encode()

    def longest_wait_s(self) -> int:
        """The longest that the contract lets a full chunk wait for room."""
        waits = [1.5 * self.document_window if self.document is not None else 0.0]
        waits += [1.05 * self.rate[1]] if self.rate else []
        return ceil(max(waits))

    def _fields(self) -> dict[str, str]:
        used = self.used()
        windows: Mapping[str, float | None] = {"c": None, "d": self.document_window, "r": (self.rate or (0, 0))[1]}
        policies, rooms = [], []
        for name, limit in self.limits():
            window = windows[name[0]]
            policies.append(f'"{name}";q={limit}' + (f";w={ceil(window)}" if window else "") + ';qu="sites"')
            if window:
                ends = list(self.reached.values()) if name == "document" else self._entries()
                reset = min((end - self.now for end in ends if end > self.now), default=0.0)
                rooms.append(f'"{name}";r={max(limit - used[name], 0)};t={max(1, ceil(reset))}')
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(rooms)}


def _end(now: float, window: float, *, parts: int) -> float:
    """When a charge made now stops counting: a window after the end of its part of the window."""
    part = window / parts
    return (now // part + 1) * part + window
