"""The report's pictures, as SVG text that needs nothing else."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.spans import spans_of
from fanout_guard.stress.knee import Knee
from fanout_guard.stress.model import Level, Results
from fanout_guard.stress.verdict import Judgement

INK, DOTS, KNEE, CAP, GOAL, QUIET = "#1f2937", "#2563eb", "#b45309", "#b91c1c", "#15803d", "#6b7280"
SHADES = ("#eef2ff", "#ecfdf5", "#fff7ed", "#fdf2f8", "#f0f9ff", "#fefce8", "#f5f3ff")
SIZE = (5.6, 3.7)  # inches: readable at the width of a phone
MOST_LABELS = 24  # side by side below a picture
MOST_SPANS = 40  # upright, in small print, over one

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text: smaller, and can be selected
        "svg.hashsalt": "fanout-guard",
        "font.family": ["sans-serif"],
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e7eb",
        "axes.edgecolor": INK,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
)


def latency(results: Results, judgement: Judgement) -> str:
    """Every document as a dot, the medians, the hinge with its interval, the cap and the goal."""
    figure, axes = _canvas("sites a document goes to", "latency (ms)")
    levels = [level for level in results.levels if level.latencies_ms]
    for level in levels:
        axes.plot(_spread(level, levels), level.latencies_ms, "o", color=DOTS, alpha=0.35, ms=3.5, mew=0)
    axes.plot([], [], "o", color=DOTS, alpha=0.6, ms=4, label="document")
    middles = [median(level.latencies_ms) for level in levels]
    axes.plot([level.sites for level in levels], middles, "_", color=INK, ms=13, mew=2, label="median")
    if judgement.knee and judgement.base_ms:
        _hinge(axes, judgement.knee, levels, middles)
    if results.cap:
        axes.axvline(results.cap, color=CAP, lw=1.2, ls="--", label=f"cap {results.cap}")
    if results.goals.p95_ms:
        axes.axhline(results.goals.p95_ms, color=GOAL, lw=1.2, ls=":", label=f"goal p95 {results.goals.p95_ms:g}")
    _whole(axes)
    _legend(figure)
    return _svg(figure)


def boxes(results: Results) -> str:
    """Median, quartiles and extremes of each level."""
    figure, axes = _canvas("sites a document goes to", "latency (ms)")
    levels = [level for level in results.levels if level.latencies_ms]
    step = -(-len(levels) // MOST_LABELS)
    axes.boxplot(
        [list(level.latencies_ms) for level in levels],
        tick_labels=["" if place % step else str(level.sites) for place, level in enumerate(levels)],
        whis=(0, 100),
        medianprops={"color": CAP},
        boxprops={"color": INK},
    )
    axes.tick_params(axis="x", labelrotation=90 if len(levels) > 9 else 0)
    return _svg(figure)


def resources(results: Results) -> str:
    """CPU of the target and memory, against sites."""
    figure, axes = _canvas("sites a document goes to", "CPU of the target (% of a core)")
    levels = [level for level in results.levels if level.cpu_percent is not None]
    sites = [level.sites for level in levels]
    axes.plot(sites, [level.cpu_percent or 0.0 for level in levels], "o-", color=DOTS, label="CPU")
    pressed = [level.pressure_percent or 0.0 for level in levels]
    axes.plot(sites, pressed, "s:", color=QUIET, ms=4, label="CPU pressure of the machine (%)")
    _whole(axes)
    memory = axes.twinx()
    resident = [level.rss_mb or 0.0 for level in levels]
    memory.plot(sites, resident, "^--", color=KNEE, ms=5, label="memory")
    memory.set_ylabel("memory of the target (MB)")
    memory.set_ylim(0, max([*resident, 1.0]) * 1.3)
    memory.grid(visible=False)
    memory.spines["right"].set_visible(True)
    _legend(figure)
    return _svg(figure)


def timeline(results: Results) -> str:
    """Every document at its time, levels shaded: shows the order, drift and disturbances."""
    figure, axes = _canvas("seconds since the start", "latency (ms)")
    shades = dict(zip((level.sites for level in results.levels), cycle(SHADES), strict=False))
    top = max((sample.latency_ms for level in results.levels for sample in level.samples), default=1.0)
    spans = spans_of(results)
    room = (max(span.end_s for span in spans) - min(span.begin_s for span in spans)) / MOST_SPANS if spans else 0.0
    free_from = 0.0
    for span in sorted(spans, key=lambda span: span.begin_s):
        axes.axvspan(span.begin_s, span.end_s, color=shades.get(span.sites, "#f3f4f6"), lw=0)
        middle = (span.begin_s + span.end_s) / 2
        if middle >= free_from:
            axes.text(middle, top * 1.04, str(span.sites), ha="center", va="bottom", fontsize=7, rotation=90)
            free_from = middle + room
    for ok, colour, label in ((True, DOTS, "delivered"), (False, CAP, "failed")):
        points = [
            (sample.scheduled_s, sample.latency_ms)
            for level in results.levels
            for sample in level.samples
            if sample.ok is ok and sample.scheduled_s is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o" if ok else "x", color=colour, ms=3, label=label)
    axes.set_ylim(0, top * 1.22)
    axes.grid(visible=False)
    _legend(figure)
    return _svg(figure)


def bystanders(latencies_ms: Mapping[str, Sequence[float]]) -> str:
    """Share of bystanders' documents that took at most so long: alone, beside the flood, and with the guard."""
    figure, axes = _canvas("latency of a bystander (ms)", "share of documents (%)")
    for (name, values), style, colour in zip(latencies_ms.items(), ("-", "--", "-."), (DOTS, KNEE, GOAL), strict=False):
        ordered = np.sort(np.asarray(values, dtype=float))
        shares = np.arange(1, len(ordered) + 1) / max(len(ordered), 1) * 100
        axes.step(ordered, shares, style, where="post", color=colour, lw=1.8, label=name)
    axes.axhline(95, color=QUIET, lw=1, ls=":")
    axes.set_ylim(0, 101)
    axes.set_xlim(left=0)
    _legend(figure)
    return _svg(figure)


def _hinge(axes: Axes, knee: Knee, levels: Sequence[Level], middles: Sequence[float]) -> None:
    left, right = levels[0].sites, levels[-1].sites
    sites = np.asarray([level.sites for level in levels], dtype=float)
    bend = knee.left_slope * np.minimum(sites - knee.sites, 0) + knee.right_slope * np.maximum(sites - knee.sites, 0)
    at_knee = float(np.mean(np.asarray(middles) - bend))  # the slopes are given, the height is what fits best
    ends = [at_knee - knee.left_slope * (knee.sites - left), at_knee, at_knee + knee.right_slope * (right - knee.sites)]
    axes.plot([left, knee.sites, right], ends, color=KNEE, lw=1.6, label=f"hinge, knee {knee.sites:.0f}")
    axes.axvspan(knee.low, knee.high, color=KNEE, alpha=0.15, lw=0, label=f"95 %: {knee.low:.0f}-{knee.high:.0f}")


def _spread(level: Level, levels: Sequence[Level]) -> np.ndarray[Any, Any]:
    """The documents of a level side by side, a little, so that they do not hide each other."""
    width = (levels[-1].sites - levels[0].sites) / 60 if len(levels) > 1 else 1.0
    return level.sites + np.linspace(-width / 2, width / 2, len(level.latencies_ms))


def _canvas(horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    return figure, axes


def _whole(axes: Axes) -> None:
    """From 0 to above the highest dot, and no fraction of a site below."""
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def _legend(figure: Figure) -> None:
    """Below the picture: inside it, lines and dots would run through the words."""
    handles = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The size comes from the page; only the proportions are the picture's.
    head, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest
