"""From the generator's records to the levels that are judged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks.measure import Finished, levels
from benchmarks.plan import Outcome, Phase, PhaseEnd
from benchmarks.resources import Figures
from benchmarks.sweep import require_useful
from benchmarks.target import TargetFailed


def finished(*results: str, sweep: int = 1, sites: int = 300, lag_ms: float = 1.0, **figures: float) -> Finished:
    outcomes = tuple(
        Outcome(
            phase=0,
            index=index,
            scheduled=100.0 + index,
            result=result,
            latency_ms={"ok": 1000.0, "failed": 30.0, "refused": 5.0, "unfinished": 20_000.0}[result],
            lag_ms=0.0 if result == "unfinished" else lag_ms,
            status=0 if result == "unfinished" else 200,
        )
        for index, result in enumerate(results)
    )
    return Finished(
        phase=Phase(sweep=sweep, sites=sites, documents=len(results), rate=1.0),
        end=PhaseEnd(phase=0, begin=100.0, end=110.0, drain_seconds=0.5),
        outcomes=outcomes,
        figures=Figures(**figures),  # type: ignore[arg-type]
    )


def test_fast_refusals_never_enter_the_latencies() -> None:
    """80 refusals of 5 ms beside 20 documents of 1000 ms would make a p95 of 5 ms, and move the knee up."""
    level = levels([finished(*["ok"] * 20, *["refused"] * 80)], start=100.0)[0]
    assert level.latencies_ms == (1000.0,) * 20
    assert (level.refused, level.errors, level.documents, level.capped) == (80, 0, 100, False)


def test_a_level_that_the_targets_own_cap_refuses_is_capped() -> None:
    """It says nothing of the latency there, and is reported as such."""
    level = levels([finished("refused", "refused")], start=100.0)[0]
    assert level.capped
    assert level.latencies_ms == ()


def test_documents_that_never_ended_are_errors() -> None:
    """The slowest documents are the ones that a cut-off run would lose."""
    level = levels([finished("ok", "unfinished", "failed")], start=100.0)[0]
    assert (level.errors, level.failed, level.documents) == (2, 2, 3)
    assert [sample.ok for sample in level.samples] == [True, False]


def test_sweeps_of_one_fan_out_become_one_level_with_the_worst_figures() -> None:
    """One quiet sweep must not hide a busy one."""
    runs = [
        finished("ok", sweep=1, cpu_percent=5.0, pressure_percent=1.0),
        finished("ok", sweep=2, cpu_percent=9.0),
        finished("ok", sites=100),
    ]
    low, high = levels(runs, start=90.0)
    assert (low.sites, high.sites) == (100, 300)
    assert (high.cpu_percent, high.pressure_percent, low.cpu_percent) == (9.0, 1.0, None)
    assert [(sample.sweep, sample.scheduled_s) for sample in high.samples] == [(1, 10.0), (2, 10.0)]


def test_a_generator_that_fell_behind_shows_in_the_achieved_rate() -> None:
    """A level that was not driven as scheduled must not look healthy."""
    assert finished("ok", "ok").achieved_rate == pytest.approx(1.0)
    late = finished("ok", "ok")
    last = late.outcomes[1]
    slow = Outcome(**{name: getattr(last, name) for name in last.__struct_fields__} | {"lag_ms": 2001.0})
    assert Finished(phase=late.phase, end=late.end, outcomes=(late.outcomes[0], slow)).achieved_rate == 0.5
    given_up = finished("ok", "unfinished")
    assert given_up.achieved_rate == pytest.approx(0.5)
    sent = replace(given_up.outcomes[1], lag_ms=1.0)
    hung = Finished(phase=given_up.phase, end=given_up.end, outcomes=(given_up.outcomes[0], sent))
    assert hung.achieved_rate == pytest.approx(1.0), "that it was never answered is the target's doing"


def test_a_level_without_any_answer_means_that_the_target_is_gone() -> None:
    """Refused connections end the run; they are no measurement."""
    assert finished("unfinished", "unfinished").unanswered
    assert not finished("unfinished", "ok").unanswered


@pytest.mark.parametrize("useful", ["ok", "refused"])
def test_one_document_that_did_not_fail_means_that_the_target_works(useful: str) -> None:
    """What its own cap refuses is an answer too; what is left of the others is for the judgement."""
    failed = finished("failed", "failed", "unfinished")
    require_useful("http://h", [failed, finished("failed", useful)])
    with pytest.raises(TargetFailed, match="http://h: none of 6 documents succeeded"):
        require_useful("http://h", [failed, failed])


@pytest.mark.parametrize(
    ("results", "text"),
    [
        (("ok", "failed"), "300 sites: median 1000 ms, slowest 1000 ms; 1 failed"),
        (("refused",), "300 sites: 1 refused by the target's cap"),
        (("unfinished",), "300 sites: 1 failed (no answer)"),
    ],
)
def test_the_progress_says_what_happened(results: tuple[str, ...], text: str) -> None:
    """Someone watches a run of minutes and wants to stop a useless one."""
    assert finished(*results).describe() == text


def test_the_progress_says_how_most_of_them_failed() -> None:
    """A wrong token or path shows at the first level, and not in a log after the last."""
    one = finished("failed", "failed", "failed", "ok")
    details = ["status 401", "status 500", "status 401", ""]
    told = [replace(outcome, detail=text) for outcome, text in zip(one.outcomes, details, strict=True)]
    assert "3 failed (status 401)" in Finished(phase=one.phase, end=one.end, outcomes=tuple(told)).describe()
    given_up = replace(told[0], result="unfinished", detail="", status=0)  # what was not sent any more explains nothing
    outcomes = (*told[1:3], *[given_up] * 3)
    assert "5 failed (status 500)" in Finished(phase=one.phase, end=one.end, outcomes=outcomes).describe()
    refused = "no answer: [Errno 111] Connection refused"
    lost = tuple(replace(outcome, detail=refused, status=0) for outcome in told[:3])
    assert Finished(phase=one.phase, end=one.end, outcomes=lost).describe() == f"300 sites: 3 failed ({refused})"
