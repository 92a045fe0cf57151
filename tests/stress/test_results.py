"""The results file: what was measured comes back as it was, and nonsense is named."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.stress.model import Goals, Level, Results, ResultsError, Sample
from fanout_guard.stress.results import parse_results, percentiles, read_results, render, write_results
from fanout_guard.stress.verdict import judge
from tests.stress.story import hinge, level_of, run_of


def stored(**changes: Any) -> dict[str, Any]:
    """A minimal file: only what the contract lists for a level."""
    level = {
        "sites": 100,
        "documents": 6,
        "latencies_ms": [500.0, 501, 502, 503, 504],
        "errors": 1,
        "p50_ms": 502,
        "p95_ms": 503.8,
        "p99_ms": 504,
        "achieved_rate": 1.5,
        "scheduled_rate": 1.5,
        "cpu_percent": None,
        "rss_mb": 37,
    }
    return {"schema": "fanout-guard-stress/1", "environment": {}, "goals": {}, "levels": [level | changes]}


def parse(document: object) -> Results:
    return parse_results(json.dumps(document).encode())


def test_every_raw_sample_survives_the_file(tmp_path: Path) -> None:
    """A judgement can only be repeated if the file holds all that it stood on."""
    samples = (
        Sample(sweep=1, latency_ms=505.123456, scheduled_s=0.5),
        Sample(sweep=2, latency_ms=511.5, scheduled_s=9.25),
        Sample(sweep=2, latency_ms=30_000.0, scheduled_s=10.0, ok=False),
    )
    level = Level(
        sites=300,
        documents=5,
        samples=samples,
        errors=2,
        refused=1,
        drain_s=0.1,
        lag_p99_ms=3.5,
        rss_growth_mb=-0.5,
        figures={"redis_ops": 12.0, "throttled": None},
    )
    results = Results(
        levels=(level,),
        cap=300,
        goals=Goals(p95_ms=600, error_rate=0.01),
        planned_sites=(100, 300),
        environment={"cpu": "x", "cores": 2},
        failure="the target died",
        interrupted=True,
    )
    write_results(tmp_path / "results.json", results)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert read_results(tmp_path / "results.json") == results


def test_the_file_has_the_members_that_readers_rely_on() -> None:
    """Dashboards and scripts read these names."""
    results = run_of(hinge(300))
    document = json.loads(render(results, judge(results).members()))
    assert document["schema"] == "fanout-guard-stress/1"
    assert set(document["knee"]) == {"sites", "low", "high"}
    assert set(document["rise_at_cap"]) == {"percent", "low", "high"}
    assert document["verdict"] == "pass"
    assert (document["cap"], document["recommended_cap"]) == (300, 300)
    level = document["levels"][0]
    assert (level["sites"], level["documents"], level["errors"]) == (100, 21, 0)
    assert len(level["latencies_ms"]) == 21
    for name in ("p50_ms", "p95_ms", "p99_ms", "achieved_rate", "scheduled_rate", "cpu_percent", "rss_mb"):
        assert isinstance(level[name], float)


def test_a_judgement_repeated_from_the_file_is_the_same(tmp_path: Path) -> None:
    """The seed is fixed, so nobody can draw again until the answer suits."""
    results = run_of(hinge(280))
    write_results(tmp_path / "r.json", results, judge(results).members())
    assert judge(read_results(tmp_path / "r.json")) == judge(results)


def test_a_file_with_only_the_contracts_members_is_enough() -> None:
    """Other programs may write results too."""
    (level,) = parse(stored()).levels
    assert list(level.latencies_ms) == [500, 501, 502, 503, 504]
    assert (level.failed, level.answered, level.rss_mb) == (1, 6, 37)


def test_a_document_that_never_ended_counts_as_failed() -> None:
    """Else the slowest documents would vanish from the results and make them look healthy."""
    (level,) = parse(stored(documents=20)).levels
    assert level.failed == 15


def test_levels_are_ordered_by_fan_out() -> None:
    """Sweeps run in shuffled order; a file may list levels so."""
    document = stored()
    document["levels"] = [document["levels"][0] | {"sites": sites} for sites in (300, 100, 200)]
    assert [level.sites for level in parse(document).levels] == [100, 200, 300]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"latencies_ms": [500, float("nan")]}, "levels[0].latencies_ms[1]"),
        ({"latencies_ms": [500, float("inf")]}, "levels[0].latencies_ms[1]"),
        ({"latencies_ms": [-1]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": [0]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": [1e12]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": ["500"]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": [None]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": [True]}, "levels[0].latencies_ms[0]"),
        ({"latencies_ms": None}, "levels[0].latencies_ms"),
        ({"latencies_ms": {}}, "levels[0].latencies_ms"),
        ({"sites": 0}, "levels[0].sites"),
        ({"sites": -100}, "levels[0].sites"),
        ({"sites": 100.5}, "levels[0].sites"),
        ({"sites": "100"}, "levels[0].sites"),
        ({"sites": True}, "levels[0].sites"),
        ({"sites": 10**30}, "levels[0].sites"),
        ({"documents": -1}, "levels[0].documents"),
        ({"documents": 5}, "6 documents succeeded, failed or were refused, but only 5"),
        ({"errors": -1}, "levels[0].errors"),
        ({"errors": float("nan")}, "levels[0].errors"),
        ({"cpu_percent": float("nan")}, "levels[0].cpu_percent"),
        ({"cpu_percent": -3}, "levels[0].cpu_percent"),
        ({"rss_mb": "37 MB"}, "levels[0].rss_mb"),
        ({"p95_ms": -5}, "levels[0].p95_ms"),
        ({"achieved_rate": []}, "levels[0].achieved_rate"),
        ({"sweeps": [1, 2]}, "levels[0].sweeps: 2 entries beside 5 latencies_ms"),
        ({"scheduled_s": [0.0] * 6}, "levels[0].scheduled_s"),
        ({"scheduled_s": [-1.0] * 5}, "levels[0].scheduled_s[0]"),
        ({"failures": [{"sweep": 1}]}, "levels[0].failures[0]"),
    ],
)
def test_nonsense_in_a_level_is_named(changes: dict[str, Any], named: str) -> None:
    """Whoever made the file must find the cell."""
    with pytest.raises(ResultsError) as caught:
        parse(stored(**changes))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member", ["sites", "documents", "latencies_ms", "errors"])
def test_a_missing_member_is_named(member: str) -> None:
    """Nothing that a judgement needs is guessed."""
    document = stored()
    del document["levels"][0][member]
    with pytest.raises(ResultsError, match=rf"levels\[0\].*{member}"):
        parse(document)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{}", "schema"),
        (b"[]", "expected `object`"),
        (b"null", "expected `object`"),
        (b'{"schema": "fanout-guard-stress/2", "levels": []}', "fanout-guard-stress/2"),
        (b'{"schema": 1}', "schema"),
        (b'{"schema": "fanout-guard-stress/1"}', "levels"),
        (b'{"schema": "fanout-guard-stress/1", "levels": {}}', "levels"),
        (b'{"schema": "fanout-guard-stress/1", "levels": [], "cap": -1}', "cap"),
        (b'{"schema": "fanout-guard-stress/1", "levels": [], "goals": {"p95": "fast"}}', "p95"),
        (b'{"schema": "fanout-guard-stress/1", "levels": [], "goals": {"speed": 1}}', "speed"),
        (b'{"schema": "fanout-guard-stress/1", "levels": [], "goals": {"p95": 600, "p95_ms": 700}}', "given twice"),
        (b'{"schema": "fanout-guard-stress/1", "levels": [', "not a results file"),
        (b"\xff\xfe\x00", "not a results file"),
        (b"[" * 100_000, "not a results file"),
    ],
)
def test_what_is_no_results_file_is_refused(content: bytes, named: str) -> None:
    """A wrong file must never look like a test that found nothing."""
    with pytest.raises(ResultsError) as caught:
        parse_results(content)
    assert named.lower() in str(caught.value).lower()


def test_a_fan_out_that_is_there_twice_is_refused() -> None:
    """Which of the two was meant nobody can tell."""
    document = stored()
    document["levels"] *= 2
    with pytest.raises(ResultsError, match="100 sites occur twice"):
        parse(document)


def test_goals_are_read_as_numbers_and_as_the_command_line_spells_them() -> None:
    """A file written by hand says p95 = 600ms."""
    document = stored()
    document["goals"] = {"p95": "0.6s", "error_rate": 0.00001, "cpu": None, "memory_mb": 256}
    assert parse(document).goals == Goals(p95_ms=600, error_rate=0.00001, rss_mb=256)


def test_a_byte_order_mark_does_no_harm() -> None:
    """Editors on Windows put one in front."""
    assert parse_results(b"\xef\xbb\xbf" + json.dumps(stored()).encode()).levels


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    member=st.sampled_from([*sorted(stored()["levels"][0]), "sweeps", "failures", "figures", "refused", "capped"]),
    value=json_values,
)
def test_no_member_of_a_level_can_raise_anything_else(member: str, value: object) -> None:
    """Whatever stands in a file, the answer is results or one documented error."""
    with suppress(ResultsError):
        judge(parse(stored(**{member: value})))


@given(content=st.binary(max_size=60))
def test_no_bytes_can_raise_anything_else(content: bytes) -> None:
    """Files get truncated, overwritten and mixed up."""
    with pytest.raises(ResultsError):
        parse_results(content)


@pytest.mark.parametrize("latency", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_level_in_hand_is_a_valid_one(latency: float) -> None:
    """The runner's own mistakes must not reach a judgement either."""
    with pytest.raises(ResultsError, match="300 sites"):
        level_of(300, [[500.0, latency]])


@pytest.mark.parametrize("counts", [{"sites": 0}, {"documents": -1}, {"errors": -1}, {"refused": -1}])
def test_a_level_has_sane_counts(counts: dict[str, int]) -> None:
    """A negative count would make failures vanish."""
    with pytest.raises(ResultsError):
        Level(**({"sites": 1, "documents": 1, "samples": ()} | counts))  # type: ignore[arg-type]


def test_results_hold_each_level_once_in_order() -> None:
    """All arithmetic on neighbouring levels stands on that."""
    with pytest.raises(ResultsError, match="ascending"):
        Results(levels=(level_of(200, [[1.0]]), level_of(100, [[1.0]])))


def test_percentiles_are_interpolated_from_raw_values() -> None:
    """Rounded buckets moved a knee from 294 to 220."""
    assert percentiles([4.0, 1.0, 2.0, 3.0]) == pytest.approx({"p50_ms": 2.5, "p95_ms": 3.85, "p99_ms": 3.97})
    assert percentiles([]) == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_refusals_never_enter_a_percentile() -> None:
    """Fast refusals pull percentiles down and the knee up."""
    level = level_of(300, [[1000.0] * 20], refused=80)
    document = json.loads(render(Results(levels=(level,))))["levels"][0]
    assert (document["p50_ms"], document["p95_ms"], document["refused"], document["errors"]) == (1000, 1000, 80, 0)
