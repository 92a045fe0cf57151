"""Draw how the cost of a decision grows, for the README."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.figures import Growth, Level, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORKER, SERVER, RIVAL = "#1f6feb", "#bf8700", "#8c959f"


def draw(growth: Growth, folder: Path) -> Path:
    """Write ``growth.svg`` into ``folder`` and give its path."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    with mpl.rc_context({"svg.hashsalt": "growth", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure, ((sites, tenants), (workers, at_once)) = pyplot.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
        _costs(sites, growth.sites, "sites of a circulation, all four caps", per=lambda size: size)
        _costs(tenants, growth.tenants, "tenants, one cap", per=lambda size: 1)
        _rates(workers, [("fanout_guard", WORKER, growth.workers)], "workers, 64 decisions at once in each")
        rivals = [("fanout_guard", WORKER, growth.at_once), ("fastest peer", RIVAL, growth.rival_at_once)]
        _rates(at_once, rivals, "decisions at once, one worker")
        path = folder / "growth.svg"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
    return path


def _costs(axes: Axes, points: Sequence[Point], title: str, *, per: Callable[[int], int]) -> None:
    sizes = [point.size for point in points]
    figures: list[tuple[str, str, Callable[[Level], float]]] = [
        ("worker CPU", WORKER, lambda level: level.worker_us),
        ("server CPU", SERVER, lambda level: level.server_us),
    ]
    for name, colour, figure in figures:
        axes.plot(sizes, [figure(point.level) / per(point.size) for point in points], "o-", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)  # a dot at the top is whole
    axes.set_xlabel(title)
    axes.set_ylabel("µs per site" if per(2) == 2 else "µs per decision")
    axes.legend()


def _rates(axes: Axes, curves: Sequence[tuple[str, str, Sequence[Point]]], title: str) -> None:
    for name, colour, points in curves:
        sizes = [point.size for point in points]
        axes.plot(sizes, [point.level.rate for point in points], "o-", color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)  # a dot at the top is whole
    axes.set_xlabel(title)
    axes.set_ylabel("decisions per second")
    axes.legend()
