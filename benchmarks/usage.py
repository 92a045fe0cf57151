"""The load that an API really sees, as the rate and fan-out of its circulations.

Read from a CSV ``time,sites`` (one line per circulation) or from two scrapes of the guard's metrics.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

HISTOGRAM = "fanout_guard_circulation_sites"
DECISIONS = "fanout_guard_decisions_total"
BUCKET = f"{HISTOGRAM}_bucket"
MINUTE = 60.0
MOST_A_SECOND = 1000
"""So many circulations a second are believed to be what an API has seen."""
_MOST_MINUTES = 5 * 366 * 1440
_LATEST_S = 3e11  # in the year 11476; as milliseconds, in 1979
# The labels end at the first brace that stands in none of their texts.
LINE = re.compile(r'^(?P<name>\w+)(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(?P<value>\S+)')
BOUND = re.compile(r'le="([^"]+)"')


class UsageError(ValueError):
    """Raised when a usage file cannot be read; names the file, and the row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Arrivals a second (the busy minutes' rate: the 95th percentile) and the fan-out asked for."""

    circulations: int
    mean_rate: float
    busy_rate: float
    p50_sites: float
    p99_sites: float
    share_over_cap: float
    exact: bool = True
    over_cap_seen: int | None = None

    def describe(self, cap: int) -> str:
        """One line for the report."""
        about = "" if self.exact else "about "
        seen = "" if self.over_cap_seen is None else f"; the guard found {self.over_cap_seen} over its own cap"
        return (
            f"{self.circulations} circulations, {self.mean_rate:.3g}/s on average and {self.busy_rate:.3g}/s "
            f"in busy minutes; median fan-out {self.p50_sites:.0f}, p99 {self.p99_sites:.0f}; {about}"
            f"{self.share_over_cap:.1%} of them would be over the cap of {cap}{seen}"
        )


def read_usage(paths: list[Path], *, interval_s: float | None, cap: int) -> Usage:
    """Read one CSV, or two scrapes with the seconds between them; raises UsageError.

    Also for more than ``MOST_A_SECOND``: in another unit of time, a quiet API's usage would be a flood.
    """
    usage = _read_usage(paths, interval_s=interval_s, cap=cap)
    if usage.busy_rate > MOST_A_SECOND:
        unit = "is --interval" if interval_s else "are its times"
        raise UsageError(
            f"{paths[0]}: {usage.busy_rate:,.0f} circulations a second; at most {MOST_A_SECOND:,} are believed; "
            f"{unit} in seconds? If so, give --rate instead"
        )
    return usage


def _read_usage(paths: list[Path], *, interval_s: float | None, cap: int) -> Usage:
    if len(paths) == 2:
        if not interval_s:
            raise UsageError("two scrapes need --interval, the seconds between them")
        return from_scrapes(*(_read(path) for path in paths), interval_s=interval_s, cap=cap)
    if len(paths) != 1:
        raise UsageError("--usage takes one CSV or two scrapes")
    text = _read(paths[0])
    if HISTOGRAM in text:
        raise UsageError(f"{paths[0]}: one scrape gives no rate: give two, and --interval between them")
    if interval_s:
        raise UsageError(f"--interval needs two scrapes, and {paths[0]} is not one")
    return from_csv(text, name=str(paths[0]), cap=cap)


def from_csv(text: str, *, name: str, cap: int) -> Usage:
    """Usage from ``time,sites`` rows; time in seconds or ISO 8601."""
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise UsageError(f"{name}: {error}") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "time" not in header or "sites" not in header:
        raise UsageError(f"{name}: the first row must name the columns time and sites")
    time_column, sites_column = header.index("time"), header.index("sites")
    times, sites = [], []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise UsageError(f"{name}: row {number} has {len(row)} cells, the header {len(header)}")
        times.append(_time(row[time_column].strip(), f"{name}: row {number}, column time"))
        sites.append(_count(row[sites_column].strip(), f"{name}: row {number}, column sites"))
    if len(times) < 2 or max(times) == min(times):
        raise UsageError(f"{name}: needs circulations at two times or more, to tell a rate")
    busy = _busy_rate(times, name)
    if max(times) > _LATEST_S:
        raise UsageError(f"{name}: a time is {max(times):.0f}: are they seconds since 1970, and not milliseconds?")
    p50_sites, p99_sites = map(float, np.percentile(sites, (50, 99)))
    mean = (len(times) - 1) / (max(times) - min(times))
    return Usage(
        circulations=len(times),
        mean_rate=mean,
        busy_rate=max(busy, mean),
        p50_sites=p50_sites,
        p99_sites=p99_sites,
        share_over_cap=sum(count > cap for count in sites) / len(sites),
    )


def from_scrapes(before: str, after: str, *, interval_s: float, cap: int) -> Usage:
    """Usage from the growth of the fan-out histogram between two scrapes; quantiles are interpolated."""
    first, last = _buckets(before), _buckets(after)
    if not last or HISTOGRAM not in before or first.keys() - last.keys():
        raise UsageError(f"the scrapes hold no {HISTOGRAM} histogram, or not the same one")
    bounds = sorted(last)
    counts = [last[bound] - first.get(bound, 0.0) for bound in bounds]
    if any(count < 0 for count in counts) or counts != sorted(counts):
        raise UsageError("the second scrape counts less than the first: swapped, or the API restarted")
    if counts[-1] == 0:
        raise UsageError("nothing was circulated between the scrapes")
    rate = counts[-1] / interval_s
    return Usage(
        circulations=int(counts[-1]),
        mean_rate=rate,
        busy_rate=rate,
        p50_sites=_histogram_quantile(bounds, counts, 0.5),
        p99_sites=_histogram_quantile(bounds, counts, 0.99),
        share_over_cap=1 - _cumulative_at(bounds, counts, cap) / counts[-1],
        exact=cap in bounds,
        over_cap_seen=_over_cap(after, before),
    )


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not text.strip():
        raise UsageError(f"{path}: is empty")
    return text


def _time(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(f"{where}: {text!r} is neither seconds nor an ISO 8601 time") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise UsageError(f"{where}: {text!r} is not a finite number")
    return seconds


def _count(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise UsageError(f"{where}: {text!r} is not a number of sites")
    return int(text)


def _busy_rate(times: list[float], name: str) -> float:
    """The 95th percentile of the rates of whole minutes, quiet minutes included."""
    first = min(times)
    minutes = int((max(times) - first) // MINUTE)
    if minutes < 1:
        return 0.0
    if minutes > _MOST_MINUTES:
        raise UsageError(
            f"{name}: the times span {minutes // 1440} days; are they seconds since 1970, and not milliseconds?"
        )
    per_minute = Counter(int((moment - first) // MINUTE) for moment in times)
    return float(np.percentile([per_minute.get(minute, 0) for minute in range(minutes)], 95)) / MINUTE


def _buckets(text: str) -> dict[float, float]:
    buckets: defaultdict[float, float] = defaultdict(float)
    for line in text.splitlines():
        match = LINE.match(line)
        if match and match["name"] == BUCKET and (bound := BOUND.search(match["labels"] or "")):
            buckets[_number(bound[1], line)] += _counted(match["value"], line)
    return buckets


def _number(text: str, line: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"not a sample of the metrics: {line!r}") from None


def _counted(text: str, line: str) -> float:
    count = _number(text, line)
    if not math.isfinite(count):
        raise UsageError(f"not a sample of the metrics: {line!r}")
    return count


def _over_cap(after: str, before: str) -> int | None:
    """How many circulations the guard itself found over its circulation cap, refused or in shadow."""
    if DECISIONS not in after:
        return None
    found = [
        sum(
            _counted(line["value"], line[0])
            for line in map(LINE.match, text.splitlines())
            if line and _is_over_cap(line)
        )
        for text in (after, before)
    ]
    return round(max(found[0] - found[1], 0.0))


def _is_over_cap(line: re.Match[str]) -> bool:
    labels = line["labels"] or ""
    refused = 'outcome="rejected"' in labels or 'outcome="shadowed"' in labels
    return line["name"] == DECISIONS and refused and 'policy="circulation"' in labels


def _histogram_quantile(bounds: list[float], counts: list[float], share: float) -> float:
    wanted, below, under = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if math.isinf(bound):
                return below
            return below + (bound - below) * ((wanted - under) / (count - under) if count > under else 0.0)
        below, under = bound, count
    return below


def _cumulative_at(bounds: list[float], counts: list[float], cap: int) -> float:
    """Circulations up to ``cap``, interpolated where no bucket ends there."""
    return float(np.interp(cap, [0.0, *bounds], [0.0, *counts]))
