"""Whether configured caps are proven by what was measured: the question of ``fanout-guard verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fanout_guard.stress.evidence import MINIMUM_LEVELS, Evidence
from fanout_guard.stress.goals import State
from fanout_guard.stress.knee import Knee
from fanout_guard.stress.quality import Flaw
from fanout_guard.stress.verdict import knee_members, recommended

DEPLOYMENT = "*"
"""The tenant that stands for the deployment's default cap."""


class Answer(StrEnum):
    """Whether every cap is at or below the proven limit."""

    PASS = "pass"  # noqa: S105 - an answer, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> int:
        """0 every cap is proven, 1 some cap is too high, 3 the results cannot tell."""
        return {Answer.PASS: 0, Answer.FAIL: 1, Answer.INCONCLUSIVE: 3}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The answer for a set of caps; ``above`` holds the tenants whose cap is too high, with that cap."""

    answer: Answer
    reason: str
    knee: Knee | None = None
    proven_limit: int | None = None
    recommended_cap: int | None = None
    above: Mapping[str, int] = field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        """The proof as ``--json`` prints it."""
        return {
            "verdict": self.answer.value,
            "reason": self.reason,
            "knee": knee_members(self.knee),
            "proven_limit": self.proven_limit,
            "recommended_cap": self.recommended_cap,
            "above": [{"tenant": tenant, "cap": cap} for tenant, cap in self.above.items()],
        }


def whose(tenant: str) -> str:
    """A tenant's cap in words."""
    return "the default cap" if tenant == DEPLOYMENT else f"the cap of {tenant}"


def prove(evidence: Evidence, caps: Mapping[str, int | None]) -> Proof:
    """The proof for circulation caps by tenant (None: unlimited)."""
    obstacle = next(_obstacles(evidence, caps), None)
    limit = evidence.limit
    if obstacle is not None or limit is None:
        reason = obstacle or f"only {len(evidence.tested)} levels can be judged, {MINIMUM_LEVELS} are needed"
        return Proof(answer=Answer.INCONCLUSIVE, reason=reason, knee=evidence.detection.knee)
    finite = {tenant: cap for tenant, cap in caps.items() if cap is not None}
    above = {tenant: cap for tenant, cap in finite.items() if limit.allows(cap) is False}
    answer, reason = next(_answers(evidence, caps, above))
    return Proof(
        answer=answer,
        reason=reason,
        knee=evidence.detection.knee,
        proven_limit=limit.proven,
        recommended_cap=recommended(evidence),
        above=above if answer is Answer.FAIL else {},
    )


def _obstacles(evidence: Evidence, caps: Mapping[str, int | None]) -> Iterator[str]:
    """What makes the results unusable as a whole, whatever the caps are."""
    highest = max((cap for cap in caps.values() if cap is not None), default=0)
    for problem in evidence.problems:
        # a level that failed or is too short is a broken test; a late generator only spoils the levels it drove
        everywhere = problem.flaw in (Flaw.FAILED, Flaw.FEW)
        if everywhere or problem.sites <= highest or problem.sites in evidence.base_sites:
            yield problem.text
    if evidence.latency and evidence.latency.contradiction:
        yield evidence.latency.contradiction


def _answers(
    evidence: Evidence, caps: Mapping[str, int | None], above: Mapping[str, int]
) -> Iterator[tuple[Answer, str]]:
    """Every answer that applies, the one that counts first."""
    limit = evidence.limit
    assert limit is not None
    if above:
        disturbance = evidence.disturbance(min(above.values()))
        if disturbance:
            yield Answer.INCONCLUSIVE, f"{limit.what}, but {disturbance}"
        yield Answer.FAIL, limit.what
    for tenant, cap in caps.items():
        if cap is None:
            yield Answer.INCONCLUSIVE, f"{whose(tenant)} is unlimited: no test can prove that"
        elif not limit.allows(cap):
            yield Answer.INCONCLUSIVE, f"{whose(tenant)}, {cap}, {_unproven(evidence, cap)}"
    yield Answer.PASS, f"every cap is at or below the proven limit of {limit.proven or 0} sites"


def _unproven(evidence: Evidence, cap: int) -> str:
    curve, limit = evidence.curve, evidence.limit
    assert curve is not None
    assert limit is not None
    if cap in evidence.capped:
        return "was refused by the target's own cap, so it was not tested"
    if cap > curve.sites[-1]:
        return f"is beyond the tested range, which ends at {curve.sites[-1]:.0f} sites"
    if curve.covers(cap) and (evidence.latency is None or not evidence.latency.allows(cap)):
        rise = curve.rise_at(cap)
        return f"cannot be judged: the rise there is {rise.value:+.1f} % [{rise.low:+.1f}, {rise.high:+.1f}]"
    undecided = [check for check in evidence.checks if check.state is State.UNDECIDED]
    if not undecided:
        return "is below the tested range"
    check = min(undecided, key=lambda each: abs(each.sites - cap))
    more = f"; {check.more_documents} more documents there would tell" if check.more_documents else ""
    known = "was not measured"
    if check.low is not None and check.high is not None:
        known = f"lies between {check.low:.3g} and {check.high:.3g} at {check.sites} sites"
    return f"is not proven to hold the goal: {check.goal} {known}, the goal is {check.limit:g}{more}"
