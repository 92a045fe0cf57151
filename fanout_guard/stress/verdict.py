"""The verdict of a run on its own cap: the first rule that matches, and the number to set instead, if there is one.

Caps that are configured somewhere else are judged in ``proof``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from fanout_guard.core.words import plural
from fanout_guard.stress.anomalies import Anomaly, find_anomalies
from fanout_guard.stress.curve import Interval
from fanout_guard.stress.evidence import Evidence, Trend, evidence_of
from fanout_guard.stress.goals import GoalCheck, State
from fanout_guard.stress.knee import Detection, Knee
from fanout_guard.stress.limits import SIGNIFICANT_RISE, open_rise
from fanout_guard.stress.model import Results
from fanout_guard.stress.number import AT_RISK_BELOW, has_headroom, number_to_use, recommended
from fanout_guard.stress.quality import Flaw, Problem


class Verdict(StrEnum):
    """What a run says of the cap it was made for."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    PASS_HEADROOM = "pass_headroom"  # noqa: S105 - a verdict, no password
    AT_RISK = "at_risk"
    FAIL_GOALS = "fail_goals"
    FAIL_CAP_TOO_HIGH = "fail_cap_too_high"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    def exit_code(self, *, strict: bool = False) -> int:
        """0 passed, 1 failed, 3 inconclusive, 4 target or generator gave up; with ``strict``, at risk is failed."""
        if self is Verdict.AT_RISK:
            return 1 if strict else 0
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.PASS_HEADROOM: 0,
    Verdict.FAIL_GOALS: 1,
    Verdict.FAIL_CAP_TOO_HIGH: 1,
    Verdict.INCONCLUSIVE: 3,
    Verdict.ERROR: 4,
}

_RISEN = (Verdict.AT_RISK, Verdict.FAIL_CAP_TOO_HIGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict and everything it stands on; latencies in ms, rises in percent.

    ``unclear`` is the level that more documents would make clear, if one leaves the verdict open.
    ``spoiled`` is whether the verdict is open for something that stays in the data, however many documents are added.
    """

    verdict: Verdict
    reason: str
    cap: int | None
    base_ms: float | None = None
    rise: Interval | None = None
    detection: Detection = field(default_factory=Detection)
    proven_limit: int | None = None
    recommended_cap: int | None = None
    goals: tuple[GoalCheck, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    documents_needed: int | None = None
    unclear: int | None = None
    spoiled: bool = False
    documents_per_level: int = 0

    @property
    def knee(self) -> Knee | None:
        """The knee within the tested range; None if there is none to be believed."""
        return self.detection.knee

    @property
    def goals_within_cap(self) -> tuple[GoalCheck, ...]:
        """The goals at levels up to the cap, which the verdict stands on; levels above it are exploratory."""
        return tuple(check for check in self.goals if self.cap is None or check.sites <= self.cap)

    def evidence_line(self) -> str:
        """Knee, rise and number of documents in one line."""
        knee, rise = self.knee, self.rise
        parts = [f"knee {knee.sites:.0f} [{knee.low:.0f}-{knee.high:.0f}]" if knee else self._no_knee()]
        if rise:
            parts.append(f"rise@{self.cap} {rise.value:+.1f}% [{rise.low:+.1f}, {rise.high:+.1f}]")
        parts.append(f"{self.documents_per_level} docs/level")
        return ", ".join(parts)

    def _no_knee(self) -> str:
        reason = self.detection.reason
        return "no knee within the tested range" + (f" ({reason})" if reason else "")

    def export_line(self) -> str | None:
        """The environment line to set, with its evidence as a comment; None where there is no number to set."""
        if self.recommended_cap is None or self.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
            return None
        return f"export FANOUT_GUARD_MAX_SITES={self.recommended_cap}  # {self.evidence_line()}"

    def members(self) -> dict[str, Any]:
        """The judgement as members of a results file."""
        knee, rise, detection = self.knee, self.rise, self.detection
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "knee": knee and knee.members(),
            "rise_at_cap": rise and {"percent": rise.value, "low": rise.low, "high": rise.high},
            "recommended_cap": self.recommended_cap,
            "proven_limit": self.proven_limit,
            "base_ms": self.base_ms,
            "export": self.export_line(),
            "detectors": {
                "flat": detection.flat and detection.flat.members(),
                "free": detection.free and detection.free.members(),
            },
            "goal_checks": [asdict(check) for check in self.goals],
            "anomalies": [asdict(anomaly) for anomaly in self.anomalies],
        }


def judge(results: Results) -> Judgement:
    """The verdict on ``results.cap``, from the raw samples alone."""
    evidence = evidence_of(results, results.goals)
    trend, cap = evidence.trend, results.cap
    verdict, reason = next(_verdicts(results, evidence))
    disturbance = evidence.disturbance(cap or 0) if verdict in _RISEN else None
    if disturbance:  # a busy machine looks like a slow target
        verdict, reason = Verdict.INCONCLUSIVE, f"{reason}, but {disturbance}"
    return Judgement(
        verdict=verdict,
        reason=reason,
        cap=cap,
        base_ms=trend.curve.base if trend else None,
        rise=trend.rise_at(cap) if trend else None,
        detection=trend.detection if trend else Detection(),
        proven_limit=trend.limit.proven if trend else None,
        recommended_cap=number_to_use(evidence, cap),
        goals=evidence.checks,
        anomalies=find_anomalies(results),
        documents_needed=_documents_needed(evidence, cap),
        unclear=_unclear(evidence, cap or 0),
        spoiled=bool(disturbance) or (verdict is Verdict.INCONCLUSIVE and _is_spoiled(evidence, cap or 0)),
        documents_per_level=min(
            (len(level.latencies_ms) for level in evidence.levels if level.sites in evidence.usable), default=0
        ),
    )


def _verdicts(results: Results, evidence: Evidence) -> Iterator[tuple[Verdict, str]]:
    """Every verdict that applies, with its reason; the first one counts."""
    trend, cap = evidence.trend, results.cap
    if results.failure:
        yield Verdict.ERROR, results.failure
    if cap is None:
        yield Verdict.INCONCLUSIVE, "there is nothing to judge: the cap is unlimited"
        return
    yield from ((Verdict.INCONCLUSIVE, text) for text in _obstacles(evidence, cap))
    if trend is None:
        yield Verdict.INCONCLUSIVE, evidence.too_few
        return
    yield from ((Verdict.FAIL_GOALS, text) for text in _failed_goals(evidence, trend, cap))
    yield from _too_high(evidence, trend, cap)
    yield from ((Verdict.INCONCLUSIVE, text) for text in _undecided_goals(evidence, trend, cap))
    yield _passing(evidence, trend, cap)


def _obstacles(evidence: Evidence, cap: int) -> Iterator[str]:
    if cap in evidence.capped:
        yield f"the target's own cap refuses {cap} sites, so the cap was not tested"
    if evidence.unfinished:
        yield evidence.unfinished
    for problem in _problems(evidence, cap):
        yield _noise(problem.text, evidence, cap) if problem.flaw is Flaw.UNSTEADY else problem.text
    if evidence.trend and evidence.trend.latency.contradiction:
        yield _noise(evidence.trend.latency.contradiction, evidence, cap)


def _problems(evidence: Evidence, cap: int) -> list[Problem]:
    """The flaws of the levels that a cap stands on."""
    return [problem for problem in evidence.problems if problem.sites <= cap or problem.sites in evidence.base_sites]


def _unclear(evidence: Evidence, cap: int) -> int | None:
    few = (problem.sites for problem in _problems(evidence, cap) if problem.flaw is Flaw.FEW)
    latency = evidence.trend.latency if evidence.trend else None
    is_open = latency and (latency.contradiction or not latency.allows(cap))
    return min(few, default=latency.unclear if latency and is_open else None)


def _is_spoiled(evidence: Evidence, cap: int) -> bool:
    flawed = any(problem.flaw is not Flaw.FEW for problem in _problems(evidence, cap))
    return flawed or any(check.value is None for check in _undecided(evidence, cap))


def _noise(text: str, evidence: Evidence, cap: int) -> str:
    """A reason of noise, with what may have made it: whoever reads it knows what to do before the next run."""
    disturbance = evidence.disturbance(cap)
    return f"{text}; {disturbance}" if disturbance else text


def _failed_goals(evidence: Evidence, trend: Trend, cap: int) -> Iterator[str]:
    for check in evidence.checks:
        if check.sites <= cap and check.state is State.FAILS:
            yield f"{check.goal} is {check.value:.4g} at {check.sites} sites, the goal is {check.limit:g}"
    if missed := trend.missed_at(cap):
        yield f"{missed}, and it is missed from below {cap} sites on"


def _undecided_goals(evidence: Evidence, trend: Trend, cap: int) -> Iterator[str]:
    for check in _undecided(evidence, cap):
        needed = check.more_documents
        more = f": {plural(needed, 'more document')} at the cap would tell" if needed else ""
        known = f"lies between {check.low:.4g} and {check.high:.4g}" if check.value is not None else "is unknown"
        yield f"{check.goal} at {cap} sites {known}, the goal is {check.limit:g}{more}"
    if trend.latency.allows(cap) and not trend.limit.allows(cap):
        yield f"{cap} sites lie between two levels, and a goal is not proven to hold up to there"


def _too_high(evidence: Evidence, trend: Trend, cap: int) -> Iterator[tuple[Verdict, str]]:
    rise, latency = trend.rise_at(cap), trend.latency
    risen = rise is not None and rise.low > SIGNIFICANT_RISE
    if risen or latency.allows(cap) is False:
        text = f"at {cap} sites latency is {rise} over {trend.curve.base_text}" if risen else latency.what
        yield Verdict.FAIL_CAP_TOO_HIGH, text
    elif rise is None:
        yield Verdict.INCONCLUSIVE, f"{cap} sites lie outside the tested levels"
    elif not latency.allows(cap):
        text = open_rise(cap, rise) if rise.high > SIGNIFICANT_RISE else latency.doubt
        yield Verdict.INCONCLUSIVE, _noise(text, evidence, cap)


def _passing(evidence: Evidence, trend: Trend, cap: int) -> tuple[Verdict, str]:
    knee = trend.detection.knee
    if knee is None:
        if has_headroom(evidence, cap):
            return Verdict.PASS_HEADROOM, f"no rise at {cap} sites, and none proven up to {recommended(evidence)}"
        return Verdict.PASS, f"no significant rise at {cap} sites; {trend.detection.reason}"
    where = f"the knee is at {knee.sites:.0f} sites [{knee.low:.0f}-{knee.high:.0f}]"
    if knee.high < cap - cap * AT_RISK_BELOW:
        return Verdict.AT_RISK, f"{where}, below the cap of {cap}"
    if has_headroom(evidence, cap):
        return Verdict.PASS_HEADROOM, f"{where}, well above the cap of {cap}"
    return Verdict.PASS, f"no significant rise at {cap} sites; {where}"


def _undecided(evidence: Evidence, cap: int | None) -> list[GoalCheck]:
    """The goals that are open at a cap."""
    return [check for check in evidence.checks if check.sites == cap and check.state is State.UNDECIDED]


def _documents_needed(evidence: Evidence, cap: int | None) -> int | None:
    needed = (check.more_documents for check in _undecided(evidence, cap))
    return max(filter(None, needed), default=None)
