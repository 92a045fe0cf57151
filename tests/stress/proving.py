"""Tables and runs with a known truth, put before ``prove``."""

from __future__ import annotations

from collections.abc import Sequence

from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.stress.evidence import Evidence, evidence_of
from fanout_guard.stress.model import Goals, Results
from fanout_guard.stress.proof import Proof, prove

HUNDREDS = (100, 200, 300, 400, 500)
STORY = {100: 500.0, 200: 500.0, 300: 500.0, 400: 620.0, 500: 740.0}
"""Latencies that bend at 300 sites, as the story's do."""


def run(results: Results, goals: Goals | None = None) -> Evidence:
    return evidence_of(results, goals or Goals())


def proof(evidence: Evidence, *caps: int | None) -> Proof:
    """Of the default cap, and of two tenants' where more are given."""
    return prove(evidence, dict(zip([DEFAULTS, "acme", "zenith"], caps, strict=False)))


def answers(evidence: Evidence, caps: Sequence[int | None]) -> list[str]:
    return [proof(evidence, cap).answer.value for cap in caps]
