"""The results file of the suite, schema ``fanout-guard-stress/1``: raw samples in, raw samples out.

It also has percentiles, knee and verdict, for people who read it; none of them is read back, since samples are judged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from fanout_guard.errors import ConfigurationError
from fanout_guard.stress.goals import goals_of
from fanout_guard.stress.model import LARGEST, Asked, Goals, Level, Results, ResultsError, Sample

SCHEMA = "fanout-guard-stress/1"

_RANKS = (50, 95, 99)

_Count = Annotated[int, Meta(ge=0, le=LARGEST)]
_Sites = Annotated[int, Meta(ge=1, le=LARGEST)]
_Milliseconds = Annotated[float, Meta(gt=0, le=LARGEST)]
_Figure = Annotated[float, Meta(ge=0, le=LARGEST)] | None


class _Schema(Struct):
    schema: str


class _Failure(Struct, kw_only=True):
    latency_ms: _Milliseconds
    sweep: _Count = 1
    scheduled_s: _Figure = None


class _Level(Struct, kw_only=True):
    sites: _Sites
    documents: _Count
    latencies_ms: list[_Milliseconds]
    errors: _Count
    sweeps: list[_Count] | None = None
    scheduled_s: list[_Figure] | None = None
    failures: list[_Failure] = []
    refused: _Count = 0
    capped: bool = False
    p50_ms: _Figure = None
    p95_ms: _Figure = None
    p99_ms: _Figure = None
    scheduled_rate: _Figure = None
    achieved_rate: _Figure = None
    cpu_percent: _Figure = None
    rss_mb: _Figure = None
    rss_growth_mb: Annotated[float, Meta(ge=-LARGEST, le=LARGEST)] | None = None
    drain_s: _Figure = None
    lag_p99_ms: _Figure = None
    generator_cpu_percent: _Figure = None
    other_cpu_percent: _Figure = None
    pressure_percent: _Figure = None
    figures: dict[str, Annotated[float, Meta(ge=-1e18, le=1e18)] | None] = {}


class _Asked(Struct, kw_only=True):
    cap: _Count | None = None
    goals: dict[str, float | str | None] = {}


class _Results(Struct, kw_only=True):
    schema: str
    levels: list[_Level]
    environment: dict[str, Any] = {}
    goals: dict[str, float | str | None] = {}
    cap: _Count | None = None
    planned_sites: list[_Sites] = []
    failure: str | None = None
    interrupted: bool = False
    asked: _Asked | None = None


_COPIED = tuple(each.name for each in fields(Level) if each.name not in ("sites", "documents", "samples", "errors"))
"""The members of a level that are its fields as they are."""


def parse_results(content: bytes) -> Results:
    """The results in a file's bytes; raises ResultsError naming the member that is wrong."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    stored = _decode(content)
    levels = sorted((_level(index, level) for index, level in enumerate(stored.levels)), key=lambda lv: lv.sites)
    doubled = sorted({a.sites for a, b in pairwise(levels) if a.sites == b.sites})
    if doubled:
        raise ResultsError(f"levels: {doubled[0]} sites occur twice; the sweeps of a fan-out are one level")
    asked = stored.asked
    return Results(
        levels=tuple(levels),
        cap=stored.cap,
        goals=_goals(stored.goals, "goals"),
        planned_sites=tuple(sorted(set(stored.planned_sites))),
        environment=stored.environment,
        failure=stored.failure,
        interrupted=stored.interrupted,
        asked=None if asked is None else Asked(cap=asked.cap, goals=_goals(asked.goals, "asked.goals")),
    )


def _goals(stored: Mapping[str, float | str | None], member: str) -> Goals:
    try:
        return goals_of(stored)
    except ConfigurationError as error:
        raise ResultsError(f"{member}: {error.problems[0]}") from None


def read_results(path: Path) -> Results:
    """The results in a file; raises ResultsError if it is none, OSError if it cannot be read."""
    return parse_results(path.read_bytes())


def _decode(content: bytes) -> _Results:
    if not content.strip():
        raise ResultsError("the file is empty")
    try:
        document = _document(content)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"not a results file: {error}") from None
    try:
        found = msgspec.convert(document, _Schema).schema
        if found != SCHEMA:
            raise ResultsError(f"schema: {found[:60]!a} is not {SCHEMA!r}")
        return msgspec.convert(document, _Results)
    except msgspec.ValidationError as error:
        raise _located(error) from None


def _document(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        # many tools write NaN and Infinity, which are not JSON: this way validation can name the member they are in
        return json.loads(content.decode())


def _located(error: msgspec.ValidationError) -> ResultsError:
    text, _, place = str(error).rpartition(" - at `$")
    if not text:
        return ResultsError(f"not a results file: {error}")
    return ResultsError(f"{place.rstrip('`').removeprefix('.')}: {text[:1].lower()}{text[1:]}")


def _level(index: int, stored: _Level) -> Level:
    count = len(stored.latencies_ms)
    for name, beside in (("sweeps", stored.sweeps), ("scheduled_s", stored.scheduled_s)):
        if beside is not None and len(beside) != count:
            raise ResultsError(f"levels[{index}].{name}: {len(beside)} entries beside {count} latencies_ms")
    sweeps: Sequence[int] = stored.sweeps or [1] * count
    scheduled: Sequence[float | None] = stored.scheduled_s or [None] * count
    columns = zip(sweeps, stored.latencies_ms, scheduled, strict=True)
    succeeded = [Sample(sweep=s, latency_ms=latency, scheduled_s=at) for s, latency, at in columns]
    failed = [
        Sample(sweep=f.sweep, latency_ms=f.latency_ms, scheduled_s=f.scheduled_s, ok=False) for f in stored.failures
    ]
    try:
        return Level(
            sites=stored.sites,
            documents=stored.documents,
            samples=(*succeeded, *failed),
            errors=stored.errors,
            **{name: getattr(stored, name) for name in _COPIED},
        )
    except ResultsError as error:
        raise ResultsError(f"levels[{index}]: {error}") from None


def render(results: Results, judgement: Mapping[str, Any] | None = None) -> bytes:
    """The results as a file's bytes; ``judgement`` has more members, for people who read the file."""
    members = {
        "schema": SCHEMA,
        **(judgement or {}),
        "cap": results.cap,
        "goals": results.goals,
        **({"asked": results.asked} if results.asked else {}),
        "planned_sites": results.planned_sites,
        "failure": results.failure,
        "interrupted": results.interrupted,
        "environment": results.environment,
        "levels": [_members(level) for level in results.levels],
    }
    return msgspec.json.format(msgspec.json.encode(members, enc_hook=str), indent=1) + b"\n"


def write_results(path: Path, results: Results, judgement: Mapping[str, Any] | None = None) -> None:
    """Write a results file completely or not at all, so that an interrupted run never leaves half a file."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_bytes(render(results, judgement))
    os.replace(scratch, path)


def _members(level: Level) -> dict[str, Any]:
    succeeded = [sample for sample in level.samples if sample.ok]
    return {
        "sites": level.sites,
        "documents": level.documents,
        "errors": level.errors,
        **percentiles(level.latencies_ms),
        **{name: getattr(level, name) for name in _COPIED},
        "latencies_ms": [sample.latency_ms for sample in succeeded],
        "sweeps": [sample.sweep for sample in succeeded],
        "scheduled_s": [sample.scheduled_s for sample in succeeded],
        "failures": [
            {"sweep": s.sweep, "scheduled_s": s.scheduled_s, "latency_ms": s.latency_ms}
            for s in level.samples
            if not s.ok
        ],
    }


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float | None]:
    """``p50_ms``, ``p95_ms`` and ``p99_ms``, interpolated as for goals; None without latencies."""
    values = np.percentile(latencies_ms, _RANKS).tolist() if latencies_ms else [None] * len(_RANKS)
    return {f"p{rank}_ms": value for rank, value in zip(_RANKS, values, strict=True)}
