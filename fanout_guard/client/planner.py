"""What to do next: a pure function of the plan so far, and of each answer. No I/O, no clock.

One circulation at a time. A plan starts with ``Rules.first_sites``; a refusal as too large gives the size, a refusal
for now gives the wait or a smaller chunk that fits at once, an acceptance gives the pace of the next. A site leaves
``todo`` before it is sent and returns only if it was certainly not delivered.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from fanout_guard.client.answer import MAX_DELAY_S, Answer, Problem, Room
from fanout_guard.client.plan import Action, Done, Plan, Send, Wait, next_size, stopped, unknown, withdrawn
from fanout_guard.client.report import Stop, StopReason
from fanout_guard.client.rules import Rules
from fanout_guard.client.sites import digest
from fanout_guard.client.state import Chunk, State
from fanout_guard.core.model import DOCUMENT, INFLIGHT
from fanout_guard.core.problem import BODY_TOO_LARGE
from fanout_guard.core.words import plural

MAX_BACKOFF_S = 30.0
# What fits now is sent at once if it is at least this part of a chunk; smaller room is left to grow.
WORTH_SENDING = 0.25
CONFLICT = 409  # to a repeated idempotency key: the first request is still being worked on


def start(sites: Sequence[str], state: State, rules: Rules) -> Plan:
    """Plan for the sites that the state does not name yet; what an earlier run left without an answer is in doubt."""
    known = {*state.delivered, *state.doubted}
    todo = tuple(site for site in sites if site not in known)
    plan = Plan(
        state=state, todo=todo, doubtful=state.sending is not None, size=rules.first_sites, most=rules.max_sites
    )
    return plan if rules.idempotency_header is not None else unknown(plan)


def without_stale_key(plan: Plan, rules: Rules, *, now: float) -> Plan:
    """The plan once a circulation in doubt can no longer be repeated safely; ``now`` in seconds since 1970."""
    sending = plan.state.sending
    # Either way: a time in the future is from before the clock was set back, and says no more than an old one.
    if not plan.doubtful or sending is None or abs(now - sending.sent_at) < rules.idempotency_lifetime_s:
        return plan
    return unknown(plan)


def next_action(plan: Plan, rules: Rules, *, elapsed_s: float) -> Action:
    """What to do now; ``elapsed_s`` since the start of this run."""
    if plan.stop is not None:
        return Done(plan.stop)
    chunk = plan.state.sending or _next_chunk(plan)
    if chunk is None:
        return Done(None)
    pause_s = 0.0 if plan.pause is None else plan.pause.seconds
    stop = _out_of_patience(plan, rules, pause_s, elapsed_s)
    if stop is not None:
        return Done(stop)
    return Send(chunk) if plan.pause is None else plan.pause


def waited(plan: Plan, seconds: float) -> Plan:
    """The plan after its pause."""
    return replace(plan, pause=None, tried_part=False, waited_s=plan.waited_s + seconds)


def sending(plan: Plan, chunk: Chunk, *, now: float) -> Plan:
    """The plan to be saved before the chunk is sent; ``now`` in seconds since 1970."""
    if plan.doubtful:
        return plan
    state = replace(plan.state, sending=replace(chunk, sent_at=now))
    return replace(plan, state=state, todo=plan.todo[len(chunk.sites) :], fits_now=None)


def answered(plan: Plan, rules: Rules, answer: Answer) -> Plan:
    """The plan after an answer to ``state.sending``."""
    if answer.accepted:
        return _delivered(plan, answer)
    if answer.over_a_cap:
        return _too_large(plan, rules, answer)
    if answer.try_later:
        return _refused(plan, rules, answer)
    if answer.uncertain or (plan.doubtful and answer.status == CONFLICT):
        return lost(plan, rules, f"the API answered {answer.status}", answer)
    redirects = 300 <= answer.status < 400
    why = "the API redirects, and a redirect is not followed" if redirects else "the API refused the request"
    return stopped(withdrawn(plan), StopReason.REFUSED, why, answer)


def lost(plan: Plan, rules: Rules, why: str, answer: Answer | None = None) -> Plan:
    """The plan after a request of which nobody knows whether it was done."""
    failures = plan.failures + 1
    plan = replace(plan, failures=failures, pause=_backoff(failures, why))
    if rules.idempotency_header is not None:
        plan = replace(plan, doubtful=True)
        return _unavailable(plan, why, answer) if failures >= rules.attempts else plan
    return _given_up(plan, rules.max_unknown, why, answer)


def unreached(plan: Plan, rules: Rules, why: str) -> Plan:
    """The plan after a request that certainly never reached the API."""
    failures = plan.failures + 1
    plan = replace(withdrawn(plan), failures=failures, pause=_backoff(failures, why))
    return _unavailable(plan, why) if failures >= rules.attempts else plan


def cut_off(plan: Plan, rules: Rules, *, sent: bool) -> Plan:
    """The plan once the deadline has passed before an answer came; ``sent`` unless nothing can have left."""
    if not sent:
        plan = withdrawn(plan)
    elif rules.idempotency_header is not None:
        plan = replace(plan, doubtful=True)
    else:
        plan = unknown(plan)
    waiting = ", and a circulation had no answer yet" if sent else ""
    return stopped(plan, StopReason.DEADLINE, f"the deadline of {rules.deadline_s:.12g} s passed{waiting}", None)


def unsaved(plan: Plan, why: str) -> Plan:
    """The plan once its state cannot be kept: nothing more is sent, for a later call would not know of it."""
    words = why if plan.stop is None else f"{why}; {plan.stop.detail}"
    old = plan.stop or Stop(StopReason.STATE_NOT_SAVED, "")
    return replace(plan, stop=Stop(StopReason.STATE_NOT_SAVED, words, old.status, old.problem))


def _next_chunk(plan: Plan) -> Chunk | None:
    sites = plan.todo[: next_size(plan)]
    return Chunk(sites, digest(plan.state.run, *sites)) if sites else None


def _out_of_patience(plan: Plan, rules: Rules, pause_s: float, elapsed_s: float) -> Stop | None:
    if rules.deadline_s is not None and elapsed_s + pause_s > rules.deadline_s:
        return Stop(StopReason.DEADLINE, f"the deadline of {rules.deadline_s:.12g} s would pass")
    if plan.pause is not None and plan.waited_s + pause_s > rules.max_wait_s:
        detail = f"{pause_s:.12g} s more to wait, and max_wait_s is {rules.max_wait_s:.12g}"
        return Stop(StopReason.MAX_WAIT, f"{detail} ({plan.pause.because})")
    return None


def _delivered(plan: Plan, answer: Answer) -> Plan:
    assert plan.state.sending is not None  # an answer follows a request
    delivered = plan.state.delivered + plan.state.sending.sites
    plan = replace(
        plan,
        state=replace(plan.state, delivered=delivered, sending=None),
        size=answer.largest or plan.size,  # a cap that was raised since is used at once
        doubtful=False,
        tried_part=False,
        refusals=0,
        failures=0,
        unknown_in_a_row=0,
        pause=None,
    )
    return _paced(plan, answer) if plan.todo else plan


def _paced(plan: Plan, answer: Answer) -> Plan:
    """Send what there is room for, else wait for the first room to come back."""
    # Not those in flight: the field was written while this circulation still was, and its room is back by now.
    rooms = [room for room in answer.rooms if not room.policy.startswith(INFLIGHT)]
    if not rooms:
        wait_s = plan.chunk_wait_s or 0.0
        return replace(plan, pause=_pause(wait_s, "the time that the API asks for between circulations"))
    wanted = next_size(plan)
    tight = [room for room in rooms if room.remaining < wanted and not _may_be_known(plan, room)]
    least = min((room.remaining for room in tight), default=wanted)
    if _worth_sending(least, wanted):
        return replace(plan, fits_now=least)
    wait_s = max(room.reset_s for room in tight)
    return replace(plan, pause=_pause(wait_s, "room under " + ", ".join(room.policy for room in tight)))


def _may_be_known(plan: Plan, room: Room) -> bool:
    """Whether the document may have reached some of the sites left: more count than were sent from here.

    Such sites need no room. Only the API knows which they are, so it is asked however little room is left.
    """
    return room.policy == DOCUMENT and room.used > len(plan.state.delivered) + len(plan.state.doubted)


def _too_large(plan: Plan, rules: Rules, answer: Answer) -> Plan:
    assert plan.state.sending is not None
    sent = len(plan.state.sending.sites)
    problem = answer.problem or Problem()
    in_bytes = problem.type == BODY_TOO_LARGE
    size = sent // 2 if in_bytes else _part_of(sent, problem)
    if not size:
        return stopped(withdrawn(plan), StopReason.CAP_ALLOWS_NONE, "not even one site is within the cap", answer)
    if size >= sent:
        return stopped(withdrawn(plan), StopReason.REFUSED, "refused as too large within the limit it names", answer)
    if in_bytes:
        plan = replace(plan, most=size)
    else:
        plan = replace(plan, size=size, fits_now=None, chunk_wait_s=problem.chunk_wait)
    if plan.doubtful:  # a repeat cannot be cut: the first may have been delivered whole
        return _given_up(plan, rules.max_unknown, "the cap is below a circulation in doubt", answer)
    return withdrawn(plan)


def _part_of(sent: int, problem: Problem) -> int:
    """How many of ``sent`` sites can ever pass at once; fewer may fit just now, which the answer to them will say.

    Where more than an equal part fits just now, the cap is that large, unless the API expands what it gets and counts
    otherwise than we do.
    """
    fits = problem.fits_now or 0
    if not problem.chunks:
        return fits or problem.limit or 0
    part = -(-sent // problem.chunks)
    return max(part, fits) if problem.requested_sites == sent else part


def _refused(plan: Plan, rules: Rules, answer: Answer) -> Plan:
    assert plan.state.sending is not None
    sent = len(plan.state.sending.sites)
    plan = withdrawn(replace(plan, refusals=plan.refusals + 1))
    why = _name(answer.problem) or f"the API answered {answer.status}"
    if answer.status == 503:
        plan = replace(plan, failures=plan.failures + 1)
        if plan.failures >= rules.attempts:
            return _unavailable(plan, why, answer)
    fits_now = answer.problem.fits_now if answer.problem is not None else None
    if fits_now and fits_now < sent and _worth_sending(fits_now, sent) and not (plan.doubtful or plan.tried_part):
        return replace(plan, fits_now=fits_now, tried_part=True, pause=None)
    return replace(plan, fits_now=None, pause=_told(plan.refusals, answer, why))


def _told(refusals: int, answer: Answer, why: str) -> Wait:
    """The wait that was asked for, or longer where asking again after it was refused again."""
    backoff = _backoff(refusals, why)
    if answer.retry_after is None:
        return backoff
    longer = _backoff(refusals - 1, why).seconds if refusals > 1 else 0.0
    spread_s = backoff.spread_s if answer.status == 503 else 0.0
    return Wait(min(max(answer.retry_after, longer), MAX_DELAY_S), spread_s, why)


def _given_up(plan: Plan, limit: int, why: str, answer: Answer | None) -> Plan:
    """Record the circulation as unknown, and stop where that happens too often in a row."""
    in_a_row = plan.unknown_in_a_row + 1
    plan = replace(unknown(plan), unknown_in_a_row=in_a_row)
    return stopped(plan, StopReason.OUTCOME_UNKNOWN, why, answer) if in_a_row >= limit else plan


def _unavailable(plan: Plan, why: str, answer: Answer | None = None) -> Plan:
    return stopped(plan, StopReason.UNAVAILABLE, f"{plural(plan.failures, 'attempt')} failed; the last: {why}", answer)


def _worth_sending(fits: int, wanted: int) -> bool:
    return fits >= wanted * WORTH_SENDING and fits > 0


def _pause(seconds: float, because: str) -> Wait | None:
    return Wait(min(seconds, MAX_DELAY_S), 0.0, because) if seconds > 0 else None


def _backoff(failures: int, because: str) -> Wait:
    seconds = min(2.0 ** min(failures - 1, 10), MAX_BACKOFF_S)
    return Wait(seconds, seconds / 4, because)


def _name(problem: Problem | None) -> str:
    if problem is None:
        return ""
    return f"refused by {', '.join(problem.violated)}" if problem.violated else problem.title
