"""The knee: found where it is, with an honest interval, and never where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fanout_guard.stress.curve import Curve, curve_of
from fanout_guard.stress.knee import Detection, Shape, find_knee
from fanout_guard.stress.model import Results
from tests.stress.proving import HUNDREDS
from tests.stress.story import SITES, Latency, flat, hinge, line, pool_of, run_of


def curve(results: Results) -> Curve:
    return curve_of([(level.sites, list(level.sweeps().values())) for level in results.levels])


def detect(latency: Latency, *, seed: int = 1, sites: Sequence[int] = SITES, sweeps: int = 3) -> Detection:
    return find_knee(curve(run_of(latency, seed=seed, sites=sites, sweeps=sweeps)))


def exact(latencies: Sequence[float], sites: Sequence[int] = HUNDREDS) -> Detection:
    return find_knee(curve_of([(s, [[value]]) for s, value in zip(sites, latencies, strict=True)]))


def share_within(truth: int, latency: Latency, seeds: int, sites: Sequence[int] = SITES) -> float:
    found = [detect(latency, seed=seed, sites=sites).knee for seed in range(seeds)]
    return float(np.mean([knee is not None and abs(knee.sites - truth) <= 20 for knee in found]))


def test_noiseless_data_give_the_exact_knee() -> None:
    """Whatever the noise does, the method itself adds no bias."""
    knee = exact([500, 500, 500, 620, 740]).knee
    assert knee is not None
    assert (knee.sites, knee.shape) == (300, Shape.FLAT)
    assert (knee.left_slope, knee.right_slope) == pytest.approx((0.0, 1.2))


def test_a_knee_between_two_levels_is_found_between_them() -> None:
    """Answers on the grid only (as Kneedle gives) would move with the choice of levels."""
    knee = exact([500, 500, 540, 660, 780]).knee
    assert knee is not None
    assert knee.sites == pytest.approx(267, abs=1)


def test_a_slope_before_the_knee_is_allowed_for() -> None:
    """A base that climbs slowly would pull a flat hinge's knee down."""
    detection = exact([450, 500, 550, 800, 1050])
    assert detection.knee is not None
    assert detection.flat is not None
    assert detection.knee.shape is Shape.FREE
    assert detection.knee.sites == pytest.approx(300, abs=1)
    assert detection.flat.sites < 285


@pytest.mark.parametrize("sites", [HUNDREDS, SITES], ids=["hundreds", "refined"])
@pytest.mark.parametrize("truth", [250, 300, 350])
def test_a_knee_is_judged_within_twenty_sites(truth: int, sites: Sequence[int]) -> None:
    """The number that operators set stands on this."""
    assert share_within(truth, hinge(truth), seeds=10, sites=sites) >= 0.95


@pytest.mark.parametrize("slots", [285, 300, 315])
def test_the_storys_pool_is_judged_within_twenty_sites(slots: int) -> None:
    """A pool of slots bends softly, not like a hinge; the story's API is one."""
    assert share_within(slots, pool_of(slots), seeds=8) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("slots", range(220, 321, 20))
def test_any_pool_is_judged_within_twenty_sites(slots: int) -> None:
    """The same around the cap, in numbers that bear it out; a soft bend is placed late by up to 4 % of the pool."""
    assert share_within(slots, pool_of(slots), seeds=200) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("truth", range(220, 381, 20))
def test_any_hinge_is_judged_within_twenty_sites(truth: int) -> None:
    """The same for a sharp knee and twice the noise of real runs."""
    assert share_within(truth, hinge(truth, noise=12), seeds=200) >= 0.95


def test_the_interval_covers_the_truth() -> None:
    """A 95 % interval that misses more often than it says is worse than none."""
    knees = [detect(hinge(300, noise=15), seed=seed).knee for seed in range(20)]
    covered = [knee is not None and knee.low - 1 <= 300 <= knee.high + 1 for knee in knees]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("sweeps", [1, 3])
def test_flat_data_have_no_knee(sweeps: int) -> None:
    """A raw hinge finds one in 60 % of flat runs, Kneedle in all."""
    found = [detect(flat(noise=15), seed=seed, sweeps=sweeps).knee for seed in range(25)]
    assert found == [None] * 25


@pytest.mark.parametrize("noise", [0.0, 6.0, 30.0])
@pytest.mark.parametrize("sites", [HUNDREDS, SITES], ids=["hundreds", "refined"])
def test_a_straight_line_has_no_knee(noise: float, sites: Sequence[int]) -> None:
    """A steady rise from the start has no place to put a cap by its bend."""
    found = [detect(line(noise=noise), seed=seed, sites=sites) for seed in range(20)]
    assert [detection.knee for detection in found] == [None] * 20
    assert "bend" in found[0].reason


@pytest.mark.parametrize(
    "latencies",
    [
        [500, 503, 506, 509, 512],
        [500, 500, 500, 500, 500],
        [540, 530, 520, 510, 500],
        [900, 700, 600, 550, 500],
        [500, 700, 850, 950, 1000],
    ],
    ids=["monotone noise", "constant", "falling", "falling steeply", "flattening"],
)
def test_what_does_not_bend_upwards_has_no_knee(latencies: list[float]) -> None:
    """The last level is never called the knee because nothing else was found."""
    assert exact(latencies).knee is None


def test_four_levels_are_too_few() -> None:
    """Four points fit any hinge; the answer would mean nothing."""
    detection = exact([500, 500, 500, 700], sites=(100, 200, 300, 400))
    assert detection.knee is None
    assert "5 levels" in detection.reason


def test_the_same_samples_always_give_the_same_knee() -> None:
    """A judgement must not depend on the draw."""
    assert detect(pool_of(300)) == detect(pool_of(300))


def test_very_wide_ranges_are_searched_too() -> None:
    """A grid of every single site would take gigabytes here."""
    sites = (1000, 100_000, 200_000, 300_000, 400_000, 500_000_000)
    detection = exact([500, 500, 500, 500, 500, 900], sites=sites)
    assert detection.knee is not None
    assert detection.knee.sites <= 400_000


def test_the_base_is_the_mean_of_the_two_lowest_medians() -> None:
    """Rises of different runs are only comparable from the same base."""
    made = curve_of([(100, [[500.0, 510, 520]]), (200, [[530.0]]), (300, [[572.0]])])
    assert made.base == 520
    assert made.rise_at(300).value == pytest.approx(10.0)
    assert made.rise_at(250).value == pytest.approx(551 / 5.2 - 100)


def test_the_bootstrap_stays_within_each_sweep() -> None:
    """Two sweeps of one value each have no spread of their own, however far they are apart."""
    made = curve_of([(100, [[500.0] * 5, [600.0] * 5]), (200, [[500.0] * 5, [600.0] * 5])])
    assert np.ptp(made.replicates) == 0


def test_very_many_samples_fit_into_memory() -> None:
    """A run of very many documents is judged in pieces."""
    random = np.random.default_rng(1)
    made = curve_of([(100, [random.normal(500, 5, 300_000).tolist()]), (200, [[500.0]]), (300, [[500.0]])])
    assert made.replicates.shape[1] == 3
    assert abs(made.rise_at(300).value) < 1


def test_a_range_covers_its_ends_and_nothing_beyond() -> None:
    """What lies outside was not measured."""
    made = curve(run_of(flat()))
    assert [made.covers(sites) for sites in (99, 100, 500, 501)] == [False, True, True, False]


def test_a_knee_below_the_second_level_is_left_open_down_to_the_lowest() -> None:
    """A free hinge puts it at the second level, with an interval that excludes the truth."""
    detection = exact([500, 530, 630, 730, 830])
    assert detection.early
    assert detection.knee is not None
    assert (detection.knee.sites, detection.knee.low, detection.knee.shape) == (170, 100, Shape.FLAT)
    assert detection.knee.high >= 200
    assert not exact([500, 500, 500, 620, 740]).early
    assert not exact([511, 523, 534, 654, 774]).early
    assert not exact([405, 490, 490, 490, 490]).early


@pytest.mark.parametrize("truth", [410, 450, 480])
def test_a_knee_above_the_last_level_but_one_is_left_open_up_to_the_last(truth: int) -> None:
    """One level beyond the bend fits any knot after the one before it: 400 [400-400] excluded the truth for certain."""
    knees = [detect(hinge(truth, slope=3.0), seed=seed).knee for seed in range(10)]
    assert [knee is not None and knee.low <= truth <= knee.high for knee in knees] == [True] * 10


def test_a_knee_that_two_levels_rise_from_is_not_left_open() -> None:
    """What a second risen level pins down stays narrow."""
    knee = detect(hinge(360)).knee
    assert knee is not None
    assert knee.high < 400


@pytest.mark.parametrize(("documents", "sweeps"), [(1, 6), (2, 3)])
def test_sweeps_of_few_documents_do_not_hide_their_noise(documents: int, sweeps: int) -> None:
    """One document drawn from one is always the same: the interval had no width, and with two it was too narrow."""
    rises = [
        curve(run_of(hinge(266, noise=8), seed=seed, documents=documents, sweeps=sweeps)).rise_at(300)
        for seed in range(60)
    ]
    covered = [rise.low <= 8.0 <= rise.high for rise in rises]
    assert np.mean(covered) >= 0.9


def test_the_order_of_samples_and_sweeps_does_not_matter() -> None:
    """Tools that merge files write the same rows in another order; the answer stays."""
    ordered = [(s, [[500.0 + s / 9, 520, 541, 560, 590], [505.0, 511, 512, 580]]) for s in HUNDREDS]
    turned = [(s, [sweep[::-1] for sweep in sweeps[::-1]]) for s, sweeps in ordered]
    assert np.array_equal(curve_of(ordered).replicates, curve_of(turned).replicates)
