"""What the caller is told: progress on the way, and a report at the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fanout_guard.client.answer import Problem
from fanout_guard.client.sites import Site


class StopReason(StrEnum):
    """Why a circulation ended before every site was sent."""

    REFUSED = "refused"
    CAP_ALLOWS_NONE = "cap-allows-none"
    UNAVAILABLE = "unavailable"
    OUTCOME_UNKNOWN = "outcome-unknown"
    MAX_WAIT = "max-wait"
    DEADLINE = "deadline"
    STATE_NOT_SAVED = "state-not-saved"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a circulation ended early, with an explanation for people and the answer that led to it, if any."""

    reason: StopReason
    detail: str
    status: int | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress: counts of distinct sites, and the wait that begins now (0 if none) with its reason.

    ``expected_wait_s`` is how long the rest may take by the API's last answer, if that said anything.
    """

    total: int
    delivered: int
    unknown: int
    left: int
    wait_s: float = 0.0
    because: str = ""
    expected_wait_s: float | None = None

    def __str__(self) -> str:
        doubt = f", {self.unknown} unknown" if self.unknown else ""
        wait = f"; waiting {self.wait_s:.0f} s: {self.because}" if self.wait_s else ""
        return f"{self.delivered} of {self.total} sites{doubt}{wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of every site, in the order in which they were sent, or would have been.

    ``delivered`` includes earlier calls with the same state. ``duplicates`` are entries left out because the list had
    already named their site. ``unknown`` sites may or may not have the document; they are never sent again unless
    ``State.settle`` says so.
    """

    delivered: tuple[Site, ...]
    not_sent: tuple[Site, ...]
    unknown: tuple[Site, ...]
    duplicates: tuple[Site, ...]
    stopped: Stop | None
    requests: int
    waited_s: float

    @property
    def complete(self) -> bool:
        """Whether the API accepted every site."""
        return not self.not_sent and not self.unknown
