"""A sweep as asked for: its options, checked before anything starts, and what a reader needs to repeat it."""

from __future__ import annotations

import argparse
import os
import secrets
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import urlsplit

from benchmarks import machine, options, profiles
from benchmarks.plan import Phase, Plan
from benchmarks.profiles import Profile
from benchmarks.usage import Usage, read_usage
from fanout_guard.stress.goals import parse_goals
from fanout_guard.stress.model import Goals

DEFAULT_RATE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A sweep as asked for, every value checked."""

    cap: int
    sites: tuple[int, ...]
    rate: float
    profile: Profile
    profile_name: str
    goals: Goals
    seed: int
    usage: Usage | None
    run: str
    plan: Plan | None
    """What to send to ``--host``."""

    @property
    def seconds(self) -> float:
        """What is planned takes this long, about."""
        return self.profile.sweeps * profiles.duration(self._sweep())

    @property
    def documents(self) -> int:
        """What is planned sends so many, the discarded ones included."""
        return self.profile.sweeps * sum(phase.discarded + phase.documents for phase in self._sweep())

    def _sweep(self) -> list[Phase]:
        return profiles.sweep_phases(
            self.sites, self.profile, sweep=1, rate=self.rate, cap=self.cap, random=Random(self.seed)
        )


def read_request(given: argparse.Namespace) -> Request:
    """Check every option before anything starts; raises BadUsage and the errors of the parts."""
    options.check_target(given)
    cap = options.cap_from(given, os.environ)
    if given.rate and given.usage:
        raise options.BadUsage("--rate and --usage both give the rate: leave one out")
    if given.interval and not given.usage:
        raise options.BadUsage("--interval is between the two scrapes of --usage, which is missing")
    usage = read_usage(given.usage, interval_s=given.interval, cap=cap) if given.usage else None
    profile = profiles.PROFILES[given.profile]
    sites = given.sites or profiles.default_sites(cap, given.profile)
    run = f"stress-{secrets.token_hex(4)}"
    return Request(
        cap=cap,
        sites=sites,
        rate=given.rate or (usage.busy_rate if usage else DEFAULT_RATE),
        profile=replace(
            profile,
            sweeps=given.sweeps or profile.sweeps,
            documents=given.documents or profile.documents,
        ),
        profile_name=given.profile,
        goals=parse_goals(given.goal),
        seed=given.seed or secrets.randbelow(999_999) + 1,
        usage=usage,
        run=run,
        plan=options.host_plan(given, run=run, largest=max(sites)) if given.host else None,
    )


def notice(request: Request, *, host: str | None) -> str:
    """What is about to happen, with what it takes to repeat it."""
    levels = ", ".join(map(str, request.sites))
    lines = [
        f"levels {levels} at {request.rate:g} documents/s, order shuffled with --seed {request.seed}; "
        f"it takes {request.seconds:,.0f} s or more"
    ]
    if any(count > request.cap for count in request.sites):
        above = (
            "count as capped where the target refuses them" if host else "go out as a tenant whose cap this run lifts"
        )
        lines.append(f"levels above the cap of {request.cap} {above}")
    if host and (request.goals.cpu_percent, request.goals.rss_mb) != (None, None):
        lines.append("CPU and memory of another machine are not measured: with a goal for them, this run cannot pass")
    if request.usage:
        lines.append(f"usage: {request.usage.describe(request.cap)}")
    return "\n".join(lines)


def environment(given: argparse.Namespace, request: Request) -> dict[str, Any]:
    """What a reader needs to repeat or to doubt the run."""
    example_text = (
        f"example API: {given.workers} workers, {given.slots} delivery slots each, service 0 to "
        f"{given.service_seconds:g} s, {'unguarded' if given.unguarded else 'guarded'}"
    )
    return {
        **machine.describe(),
        "target": urlsplit(given.host).netloc if given.host else example_text,
        "profile": request.profile_name,
        "sweeps": request.profile.sweeps,
        "rate": request.rate,
        "seed": request.seed,
        "run": request.run,
        "lifted": [count for count in request.sites if count > request.cap and not given.host],
        "usage": request.usage.describe(request.cap) if request.usage else None,
    }
