"""The values of the planner: where a circulation of many sites stands, and what can be done next."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from fanout_guard.client.answer import Answer
from fanout_guard.client.report import Stop, StopReason
from fanout_guard.client.state import Chunk, State


class Send(Struct, frozen=True):
    """Send this circulation."""

    chunk: Chunk


class Wait(Struct, frozen=True):
    """Wait so long, plus any part of ``spread_s``, so that many clients do not come back as one."""

    seconds: float
    spread_s: float
    because: str


class Done(Struct, frozen=True):
    """Nothing more to do: everything was tried, or ``stop`` says why not."""

    stop: Stop | None


Action: TypeAlias = Send | Wait | Done


class Plan(Struct, frozen=True, kw_only=True):
    """The state to keep, and what is known for this run alone.

    Of one circulation, ``most`` is what the caller and the body's size allow, ``size`` what the caps allow;
    ``fits_now`` is what fits in the next, and ``pause`` comes before that. ``chunk_wait_s`` is what the API asks to
    leave between two. ``doubtful`` marks ``state.sending`` as one that may have been delivered already. After
    ``tried_part``, a circulation of what was told to fit, a refusal is waited for. ``refusals``, ``failures`` and
    ``unknown_in_a_row`` count since the last delivery.
    """

    state: State
    todo: tuple[str, ...]
    most: int | None = None
    size: int
    fits_now: int | None = None
    pause: Wait | None = None
    chunk_wait_s: float | None = None
    doubtful: bool = False
    tried_part: bool = False
    refusals: int = 0
    failures: int = 0
    unknown_in_a_row: int = 0
    waited_s: float = 0.0
    stop: Stop | None = None


def next_size(plan: Plan) -> int:
    """How many sites the next circulation may have."""
    bounds = (plan.most, plan.size, plan.fits_now)
    return min([len(plan.todo), *(bound for bound in bounds if bound is not None)])


def expected_wait_s(plan: Plan) -> float | None:
    """How long all that is left may have to wait, if every circulation waits as the API last said."""
    wait_s = plan.chunk_wait_s if plan.pause is None else plan.pause.seconds
    if wait_s is None or not plan.todo:
        return None
    chunks = -(-len(plan.todo) // min(plan.size, plan.most or plan.size))
    return wait_s * (chunks if plan.pause is not None else chunks - 1)


def withdrawn(plan: Plan) -> Plan:
    """Put a circulation that was not done back; one in doubt stays as it is, to be repeated whole."""
    if plan.doubtful or plan.state.sending is None:
        return plan
    return replace(plan, todo=plan.state.sending.sites + plan.todo, state=replace(plan.state, sending=None))


def unknown(plan: Plan) -> Plan:
    """Record the circulation that has no answer as one of which nobody knows whether it was delivered."""
    return replace(plan, doubtful=False, state=replace(plan.state, unknown=plan.state.doubted, sending=None))


def stopped(plan: Plan, reason: StopReason, detail: str, answer: Answer | None) -> Plan:
    """The plan that sends nothing more, with what the API said."""
    problem = answer.problem if answer is not None else None
    said = "" if problem is None else problem.detail or problem.title
    words = f"{detail}: {said}" if said else detail
    return replace(plan, stop=Stop(reason, words, answer.status if answer is not None else None, problem))
