"""When each level was measured, as a results file keeps it: the member ``phases`` of its environment."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from msgspec import Meta, Struct, ValidationError, convert

from fanout_guard.stress.model import LARGEST, Results

_Seconds = Annotated[float, Meta(ge=0, le=LARGEST)]


class Span(Struct, frozen=True, kw_only=True):
    """One level of one sweep; the seconds count from the start of the run."""

    sites: int
    begin_s: _Seconds
    end_s: _Seconds
    sweep: int = 1
    tenant: str = ""


def spans_of(results: Results) -> list[Span]:
    """Every span that can be read: a file that was not written here may have none, or something else."""
    phases = results.environment.get("phases")
    found = []
    for phase in phases if isinstance(phases, list) else ():
        with suppress(ValidationError):
            found.append(convert(phase, Span))
    return found
