"""Whether configured caps are proven by what was measured: the question of ``fanout-guard verify``.

The verdict of a run on its own cap, with more shades, is ``verdict``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.words import plural
from fanout_guard.stress.curve import Curve
from fanout_guard.stress.evidence import Evidence, Trend
from fanout_guard.stress.goals import State
from fanout_guard.stress.knee import Detection, Knee
from fanout_guard.stress.limits import SIGNIFICANT_RISE
from fanout_guard.stress.number import number_to_use, recommended
from fanout_guard.stress.quality import Flaw


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
    """The answer for a set of caps; ``above`` maps each tenant whose cap is too high to that cap.

    ``no_knee`` says why there is no knee. For a table with medians and 95th percentiles, ``column`` is the one that
    decided.
    """

    answer: Answer
    reason: str
    column: str = ""
    knee: Knee | None = None
    no_knee: str = ""
    proven_limit: int | None = None
    recommended_cap: int | None = None
    above: Mapping[str, int] = field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        """The proof as ``--json`` prints it."""
        return {
            "verdict": self.answer.value,
            "reason": self.reason,
            "knee": self.knee and self.knee.members(),
            "proven_limit": self.proven_limit,
            "recommended_cap": self.recommended_cap,
            "above": [{"tenant": tenant, "cap": cap} for tenant, cap in self.above.items()],
            **({"no_knee": self.no_knee} if self.knee is None else {}),
            **({"column": self.column} if self.column else {}),
        }


def whose(tenant: str) -> str:
    """A tenant's cap in words."""
    return "the default cap" if tenant == DEFAULTS else f"the cap of {tenant}"


def prove(evidence: Evidence, caps: Mapping[str, int | None]) -> Proof:
    """The proof for circulation caps by tenant (None: unlimited); of a table's columns, the stricter one decides."""
    proof, tail = _proof(evidence, caps), evidence.tail
    if tail is None or tail.trend is None or next(_obstacles(evidence, caps), None) is not None:
        return proof
    if all(cap is None or tail.trend.latency.allows(cap) for cap in caps.values()):
        return _beside_a_quiet_tail(proof, tail, tail.trend, caps)
    risen = _proof(tail, caps)
    strict, other = (risen, proof) if _severity(risen) > _severity(proof) else (proof, risen)
    return replace(
        strict,
        proven_limit=_least(strict.proven_limit, other.proven_limit),
        recommended_cap=_least(strict.recommended_cap, other.recommended_cap),
        above={tenant: cap for tenant, cap in caps.items() if cap and tenant in {*strict.above, *other.above}},
    )


def _severity(proof: Proof) -> tuple[int, int]:
    """A key to sort by: the worse answer is greater, and of equal answers the one with the lower number."""
    return [Answer.PASS, Answer.INCONCLUSIVE, Answer.FAIL].index(proof.answer), -(proof.recommended_cap or 0)


def _least(strict: int | None, other: int | None) -> int | None:
    return strict if strict is None or other is None else min(strict, other)


def _beside_a_quiet_tail(proof: Proof, tail: Evidence, trend: Trend, caps: Mapping[str, int | None]) -> Proof:
    """The proof if the 95th percentiles allow every cap: they still bound the number to use, and may hint at a rise."""
    number = _number(tail, caps)
    if trend.latency.exceeded is not None and number is not None and number < (proof.recommended_cap or 0):
        limit = _least(proof.proven_limit, trend.latency.proven)
        proof = replace(
            proof,
            reason=_passed(limit) if proof.answer is Answer.PASS else proof.reason,
            column=tail.column,
            knee=trend.detection.knee,
            no_knee=trend.detection.reason,
            proven_limit=limit,
            recommended_cap=number,
        )
    if proof.answer is not Answer.PASS:
        return proof
    used = max(proof.recommended_cap or 0, *(cap or 0 for cap in caps.values()))
    return replace(proof, reason=proof.reason + _hint(tail.column, trend.curve, used))


def _passed(limit: int | None) -> str:
    return f"every cap is at or below the proven limit of {limit or 0} sites"


def _hint(column: str, curve: Curve, highest: int) -> str:
    """The greatest rise of the tail up to the highest cap or number, if it would be too much were it certain."""
    rises = [(curve.rise_at(sites).value, sites) for sites in curve.sites if sites <= highest]
    most, sites = max(rises, default=(0.0, 0.0))
    if most <= SIGNIFICANT_RISE:
        return ""
    return f"; {column} is {most:.0f} % up at {sites:.0f} sites: more rows would tell whether that is chance"


def _proof(evidence: Evidence, caps: Mapping[str, int | None]) -> Proof:
    """The proof by one column."""
    obstacle = next(_obstacles(evidence, caps), None)
    trend = evidence.trend
    detection = trend.detection if trend else Detection()
    told = Proof(
        answer=Answer.INCONCLUSIVE,
        reason=obstacle or evidence.too_few,
        column=evidence.column,
        knee=detection.knee,
        no_knee=detection.reason,
    )
    if obstacle is not None or trend is None:
        return told
    finite = {tenant: cap for tenant, cap in caps.items() if cap is not None}
    above = _above(evidence, trend, finite)
    answer, reason = next(_answers(evidence, trend, caps, above))
    return replace(
        told,
        answer=answer,
        reason=reason,
        proven_limit=trend.limit.proven,
        recommended_cap=_number(evidence, caps),
        above=above if answer is Answer.FAIL else {},
    )


def _above(evidence: Evidence, trend: Trend, caps: Mapping[str, int]) -> Mapping[str, int]:
    """The caps that are too high; on a busy machine, which looks like a slow target, those that miss a goal, if any."""
    above = {tenant: cap for tenant, cap in caps.items() if trend.limit.allows(cap) is False}
    missing = {tenant: cap for tenant, cap in above.items() if trend.missed_at(cap)}
    return missing if missing and evidence.disturbance(min(above.values())) else above


def _number(evidence: Evidence, caps: Mapping[str, int | None]) -> int | None:
    """The number to use as in ``analyze``, but without the benefit of the doubt for a cap just above the knee."""
    number = number_to_use(evidence, caps.get(DEFAULTS))
    knee = evidence.trend.detection.knee if evidence.trend else None
    return number if number is None or knee is None or number <= knee.sites else recommended(evidence)


def _named(evidence: Evidence, reason: str) -> str:
    """A reason about latencies, with the column that they are from."""
    return f"{evidence.column}: {reason}" if evidence.column else reason


def _obstacles(evidence: Evidence, caps: Mapping[str, int | None]) -> Iterator[str]:
    """What makes the results unusable as a whole: they cannot even say that a cap is too high."""
    highest = max((cap for cap in caps.values() if cap is not None), default=0)
    for problem in evidence.problems:
        # a level that failed or is too short shows a broken test; other flaws matter only where caps stand on them
        everywhere = problem.flaw in (Flaw.FAILED, Flaw.FEW)
        if everywhere or problem.sites <= highest or problem.sites in evidence.base_sites:
            yield _named(evidence, problem.text) if problem.flaw is Flaw.UNSTEADY else problem.text
    if evidence.trend and evidence.trend.latency.contradiction:
        yield _named(evidence, evidence.trend.latency.contradiction)


def _answers(
    evidence: Evidence, trend: Trend, caps: Mapping[str, int | None], above: Mapping[str, int]
) -> Iterator[tuple[Answer, str]]:
    """All answers that apply; the first one counts."""
    limit = trend.limit
    if above:
        what = _named(evidence, limit.what) if limit.what == trend.latency.what else limit.what
        lowest = min(above.values())
        disturbance, missed = evidence.disturbance(lowest), trend.missed_at(lowest)
        if disturbance and not missed:
            yield Answer.INCONCLUSIVE, f"{what}, but {disturbance}"
        yield Answer.FAIL, missed if disturbance else what
    for tenant, cap in caps.items():
        if cap is None:
            yield Answer.INCONCLUSIVE, f"{whose(tenant)} is unlimited: no test can prove that"
        elif not limit.allows(cap):
            yield Answer.INCONCLUSIVE, f"{whose(tenant)}, {cap}, {_unproven(evidence, trend, cap)}"
    if evidence.unfinished:
        yield Answer.INCONCLUSIVE, evidence.unfinished
    yield Answer.PASS, _passed(limit.proven)


def _unproven(evidence: Evidence, trend: Trend, cap: int) -> str:
    curve = trend.curve
    if cap in evidence.capped:
        return "was refused by the target's own cap, so it was not tested"
    if cap > curve.sites[-1]:
        return f"is beyond the tested range, which ends at {curve.sites[-1]:.0f} sites"
    if curve.covers(cap) and not trend.latency.allows(cap):
        rise = curve.rise_at(cap)
        of = f" of {evidence.column}" if evidence.column else ""
        why = f"the rise{of} there is {rise}" if rise.high > SIGNIFICANT_RISE else trend.latency.doubt
        return f"cannot be judged: {why}"
    undecided = [check for check in evidence.checks if check.state is State.UNDECIDED]
    if not undecided:
        return "is below the tested range"
    check = min(undecided, key=lambda each: abs(each.sites - cap))
    more = f"; {plural(check.more_documents, 'more document')} there would tell" if check.more_documents else ""
    known = "was not measured"
    if check.low is not None and check.high is not None:
        known = f"lies between {check.low:.3g} and {check.high:.3g} at {check.sites} sites"
    return f"is not proven to hold the goal: {check.goal} {known}, the goal is {check.limit:g}{more}"
