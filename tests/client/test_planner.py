"""The planner against a model of the guard: every interleaving of answers, no sleep and no socket."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.client import Rules, State, Stop, StopReason
from fanout_guard.client.answer import Answer, Problem, Room
from fanout_guard.client.plan import Done, Plan, Send, Wait, expected_wait_s
from fanout_guard.client.planner import (
    answered,
    lost,
    next_action,
    sending,
    start,
    unreached,
    waited,
    without_stale_key,
)
from fanout_guard.client.sites import distinct, read_site
from fanout_guard.client.state import Chunk
from tests.client.model_server import CAP_EXCEEDED, ModelServer

KEYED = Rules(idempotency_header="Idempotency-Key")
PATIENT = Rules(max_wait_s=float("inf"))
NEW = State(document="d", run="r")


def names(count: int) -> tuple[str, ...]:
    """Spellings of so many sites."""
    return distinct(f"Site{number}" for number in range(count))[0]


def refusal(status: int = 429, **members: object) -> Answer:
    """A refusal with a problem document."""
    return Answer(status=status, problem=Problem(**members))  # type: ignore[arg-type]


def too_large(**members: object) -> Answer:
    """A refusal that no wait can help."""
    return refusal(422, type=CAP_EXCEEDED, **members)


@dataclass
class Run:
    """A finished conversation with a model server."""

    plan: Plan
    stop: Stop | None
    waits: list[float]
    requests: int


def drive(
    server: ModelServer,
    sites: tuple[str, ...],
    rules: Rules | None = None,
    state: State = NEW,
    answer: Callable[[ModelServer, bytes], Answer | str] = ModelServer.post,
) -> Run:
    """Drive the planner by hand; ``answer`` may return "lost" or "unreached" in place of an answer."""
    rules = rules or Rules()
    plan, requests = start(sites, state, rules), 0
    waits: list[float] = []
    while True:
        plan = without_stale_key(plan, rules, now=server.now)
        action = next_action(plan, rules, elapsed_s=server.now)
        if isinstance(action, Done):
            return Run(plan, action.stop, waits, requests)
        if isinstance(action, Wait):
            server.now += action.seconds
            waits.append(action.seconds)
            plan = waited(plan, action.seconds)
            continue
        plan = sending(plan, action.chunk, now=server.now)
        requests += 1
        assert requests < 2000, "the client does not come to an end"
        outcome = answer(server, body(action.chunk))
        if isinstance(outcome, Answer):
            plan = answered(plan, rules, outcome)
        else:
            plan = lost(plan, rules, outcome) if outcome == "lost" else unreached(plan, rules, outcome)


def body(chunk: Chunk) -> bytes:
    """What the driver would send."""
    return json.dumps({"target_sites": [read_site(site) for site in chunk.sites]}).encode()


caps = st.integers(1, 40)
windows = st.sampled_from([1.0, 2.0, 7.0, 60.0, 3600.0])
rates = st.none() | st.tuples(caps, windows)
servers = st.builds(
    ModelServer,
    max_sites=caps,
    document=st.none() | caps,
    document_window=windows,
    rate=rates,
    fields=st.booleans(),
    now=st.floats(0, 10_000),
)


@given(server=servers, count=st.integers(0, 150))
def test_every_site_is_delivered_exactly_once_within_the_waits_of_the_contract(server: ModelServer, count: int) -> None:
    """The client's whole promise: all of it, never twice, and no longer than the caps make necessary."""
    size = min(limit for _, limit in server.limits())
    run = drive(server, names(count), PATIENT)

    assert run.stop is None
    assert server.delivered == Counter(f"Site{number}" for number in range(count))
    assert len(run.plan.state.delivered) == count
    assert run.plan.todo == run.plan.state.in_doubt == ()
    assert sum(run.waits) <= -(-count // size) * (server.longest_wait_s() + 1)


@given(server=servers, count=st.integers(1, 80), used=st.integers(1, 40), data=st.data())
def test_room_that_others_took_is_waited_for(server: ModelServer, count: int, used: int, data: st.DataObject) -> None:
    """A tenant's other circulations share its caps: what they leave is used, what they took is waited for."""
    taken = min([used, *(limit for _, limit in server.limits())])
    server.answer([f"other{number}" for number in range(taken)])
    server.now += data.draw(st.floats(0, 10))
    size = min(limit for _, limit in server.limits())
    run = drive(server, names(count), PATIENT)

    assert run.stop is None
    assert all(server.delivered[f"Site{number}"] == 1 for number in range(count))
    assert sum(run.waits) <= (-(-count // size) + 1) * (server.longest_wait_s() + 1)


FAULTS = st.sampled_from(["ok", "lost", "cut", "500", "503", "no"])


@given(server=servers, count=st.integers(1, 100), faults=st.lists(FAULTS))
def test_no_fault_makes_a_site_get_the_document_twice(server: ModelServer, count: int, faults: list[str]) -> None:
    """A lost answer must leave doubt on record, never a second delivery and never a site that vanished."""
    script = iter(faults)

    def faulty(server: ModelServer, body: bytes) -> Answer | str:
        match next(script, "ok"):
            case "lost":
                server.post(body)
                return "lost"
            case "cut":
                return "lost"
            case "500":
                server.post(body)
                return Answer(status=500)
            case "503":
                return Answer(status=503, retry_after=1.0)
            case "no":
                return "unreached"
        return server.post(body)

    sites = names(count)
    run = drive(server, sites, answer=faulty)

    state = run.plan.state
    assert all(times == 1 for times in server.delivered.values())
    assert sorted((*state.delivered, *state.doubted, *run.plan.todo)) == sorted(sites)
    assert {read_site(site) for site in state.delivered} <= set(server.delivered)
    assert not {read_site(site) for site in run.plan.todo} & set(server.delivered)
    assert run.stop is not None or not run.plan.todo


@given(server=servers, count=st.integers(1, 100), faults=st.lists(st.booleans(), max_size=6))
def test_a_repeat_with_the_same_key_is_the_same_circulation(
    server: ModelServer, count: int, faults: list[bool]
) -> None:
    """An API that honours keys delivers once: what it is sent again must be byte for byte what was sent before."""
    script, seen = iter(faults), dict[bytes, Answer]()

    def forgetful(server: ModelServer, body: bytes) -> Answer | str:
        answer = seen.get(body) or server.post(body)
        if answer.accepted:
            seen[body] = answer
        return "lost" if next(script, False) else answer

    size = min(limit for _, limit in server.limits())
    rules = replace(PATIENT, idempotency_header="Idempotency-Key", first_sites=size)
    run = drive(server, names(count), rules, answer=forgetful)

    assert run.stop is None
    assert server.delivered == Counter(f"Site{number}" for number in range(count))
    assert run.plan.state.in_doubt == ()


def test_the_story_takes_one_refusal_and_four_circulations() -> None:
    """1,200 sites when nothing is known of the cap: the refusal gives the size, the RateLimit field the pace."""
    run = drive(ModelServer(), names(1200), Rules(first_sites=1200))

    assert run.requests == 5
    assert run.waits == [5400.0] * 3


def test_without_ratelimit_fields_the_refusals_wait_between_chunks_is_kept() -> None:
    """A deployment with HEADERS=false still says chunk_wait, so no request is sent only to be refused."""
    run = drive(ModelServer(fields=False), names(900), Rules(first_sites=900))

    assert run.requests == 4
    assert run.waits == [5400.0] * 2


def test_a_cap_a_little_below_what_was_sent_is_used_whole() -> None:
    """Equal halves of 300 would leave a quarter of a cap of 200 unused, and wait a window more for every such four."""
    run = drive(ModelServer(max_sites=200, document=200, fields=False), names(1200), Rules(first_sites=300))

    assert run.requests == 7
    assert run.waits == [5400.0] * 5


def test_a_document_that_is_full_of_the_same_sites_is_published_again_at_once() -> None:
    """Sites that the document has reached need no room: waiting for it would take hours, and nothing ever gets in."""
    server = ModelServer(document=1200)
    drive(server, names(1200))
    again = drive(server, names(1200))

    assert again.requests == 4
    assert again.waits == []


def test_a_known_cap_spares_the_refusal() -> None:
    """A caller who knows the cap need not ask for it, and may ask for less than the API allows."""
    run = drive(ModelServer(document=None), names(1200), Rules(max_sites=200))

    assert run.requests == 6
    assert run.waits == []


def test_a_cap_of_nothing_is_given_up_with_a_clear_error() -> None:
    """A tenant whose cap is 0 must not make a client ask for ever."""
    run = drive(ModelServer(max_sites=0, document=None), names(3))

    assert run.stop is not None
    assert run.stop.reason is StopReason.CAP_ALLOWS_NONE
    assert run.requests == 1
    assert len(run.plan.todo) == 3


def one_answer(answer: Answer, rules: Rules | None = None, count: int = 300) -> Plan:
    """The plan after a first answer."""
    rules = rules or Rules()
    plan = start(names(count), NEW, rules)
    action = next_action(plan, rules, elapsed_s=0)
    assert isinstance(action, Send)
    return answered(sending(plan, action.chunk, now=0), rules, answer)


@pytest.mark.parametrize("members", [{}, {"limit": 300}, {"limit": 400, "fits_now": 400}])
def test_a_contradictory_refusal_ends_it(members: dict[str, int]) -> None:
    """A refusal that names no smaller size would else be asked again for ever."""
    assert one_answer(too_large(**members)).stop is not None


def test_a_body_that_is_too_large_is_halved_and_stays_so() -> None:
    """Long names can reach the byte bound before the cap; RateLimit fields do not know of it."""
    plan = one_answer(refusal(413, type="urn:problem-type:fanout-guard:body-too-large"))
    assert plan.most == 150
    plan = answered(sending(plan, Chunk(plan.todo[:150], "k"), now=0), Rules(), Answer(status=200, largest=300))
    action = next_action(plan, Rules(), elapsed_s=0)
    assert isinstance(action, Send)
    assert len(action.chunk.sites) == 150


def test_a_raised_cap_is_used_at_once() -> None:
    """An operator's override must help the circulation that is already under way."""
    plan = one_answer(too_large(limit=10, fits_now=10))
    plan = answered(sending(plan, Chunk(plan.todo[:10], "k"), now=0), Rules(), Answer(status=200, largest=100))
    action = next_action(plan, Rules(), elapsed_s=0)
    assert isinstance(action, Send)
    assert len(action.chunk.sites) == 100


@pytest.mark.parametrize(("fits_now", "expected"), [(75, 75), (299, 299), (74, None), (0, None), (300, None)])
def test_what_fits_now_is_sent_if_it_is_worth_a_request(fits_now: int, expected: int | None) -> None:
    """Room is used when it is a good part of a chunk; drops are left to gather, so requests stay few."""
    plan = one_answer(Answer(status=429, retry_after=7, problem=Problem(fits_now=fits_now)))
    action = next_action(plan, Rules(), elapsed_s=0)
    if expected is None:
        assert isinstance(action, Wait)
        assert action.seconds == 7
    else:
        assert isinstance(action, Send)
        assert len(action.chunk.sites) == expected


def test_own_inflight_units_are_not_waited_for() -> None:
    """The RateLimit field of a success counts the circulation itself as in flight; it is over by then."""
    plan = one_answer(too_large(limit=100, fits_now=100))
    fields = Answer(status=200, largest=100, rooms=(Room("inflight", 0, 1, 100), Room("document", 200, 9, 100)))
    plan = answered(sending(plan, Chunk(plan.todo[:100], "k"), now=0), Rules(), fields)
    assert isinstance(next_action(plan, Rules(), elapsed_s=0), Send)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 409, 413, 422])
def test_a_refusal_that_is_not_the_guards_stops_and_is_reported(status: int) -> None:
    """A client must not hammer an API that says no for reasons of its own; nothing was delivered."""
    plan = one_answer(Answer(status=status, problem=Problem(detail="Bad headline.")))

    assert plan.stop is not None
    assert plan.stop.reason is StopReason.REFUSED
    assert plan.stop.status == status
    assert "Bad headline." in plan.stop.detail
    assert len(plan.todo) == 300


@pytest.mark.parametrize("status", [500, 502, 504, 503])
def test_an_error_half_way_leaves_the_sites_unknown(status: int) -> None:
    """An API that fails may have delivered some: without a key its circulation is not repeated."""
    plan = one_answer(Answer(status=status))

    assert plan.todo == ()
    assert len(plan.state.unknown) == 300


def test_two_unknown_circulations_in_a_row_end_it() -> None:
    """An API that loses every answer must not turn a whole list into sites nobody knows about."""
    run = drive(ModelServer(document=None), names(1200), answer=lambda *_: "lost")

    assert run.stop is not None
    assert run.stop.reason is StopReason.OUTCOME_UNKNOWN
    assert (len(run.plan.state.unknown), len(run.plan.todo)) == (600, 600)


def test_failures_back_off_and_end() -> None:
    """A server that is down is asked ever more rarely, and not for ever."""
    run = drive(ModelServer(), names(3), Rules(attempts=7), answer=lambda *_: "unreached")

    assert run.waits == [1, 2, 4, 8, 16, 30]
    assert run.stop is not None
    assert run.stop.reason is StopReason.UNAVAILABLE
    assert len(run.plan.todo) == 3


def test_a_503_that_says_when_is_believed_and_asked_ever_more_rarely() -> None:
    """Reduced capacity is no lost circulation: nothing is unknown, and the wait grows past what was told."""
    run = drive(ModelServer(), names(3), Rules(attempts=5), answer=lambda *_: Answer(status=503, retry_after=1.0))

    assert run.waits == [1, 1, 2, 4]
    assert run.plan.state.in_doubt == ()


def test_a_429_that_does_not_say_when_is_asked_ever_more_rarely() -> None:
    """Other limiters leave Retry-After out: their refusals must not become a busy loop."""
    script = iter([Answer(status=429)] * 4)
    run = drive(ModelServer(), names(3), answer=lambda server, body: next(script, None) or server.post(body))

    assert run.waits == [1, 2, 4, 8]
    assert run.stop is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=429, retry_after=1e300),
        Answer(status=200, largest=1, rooms=(Room("document", 0, 10**15, 1),)),
        too_large(chunks=2, chunk_wait=1e300),
    ],
)
def test_no_wait_is_longer_than_a_clock_can_sleep(answer: Answer) -> None:
    """Where the caller has no bound of its own, an absurd number must not end in an OverflowError."""
    turns = iter([answer])
    rules = Rules(max_wait_s=float("inf"), first_sites=2)
    run = drive(ModelServer(), names(3), rules, answer=lambda *_: next(turns, Answer(status=200)))

    assert set(run.waits) == {366 * 86_400.0}
    assert run.stop is None


def test_waiting_beyond_the_bound_stops_before_it_begins() -> None:
    """A bound that is only noticed after an hour's sleep is none; an absurd Retry-After cannot hang a client."""
    plan = one_answer(Answer(status=429, retry_after=366 * 86_400.0, problem=Problem(violated=("rate-60",))))
    action = next_action(plan, Rules(), elapsed_s=0)

    assert isinstance(action, Done)
    assert action.stop is not None
    assert action.stop.reason is StopReason.MAX_WAIT
    assert action.stop.detail.endswith("s more to wait, and max_wait_s is 86400 (refused by rate-60)")


def test_long_waits_are_told_in_digits() -> None:
    """A document window of a month must not be reported as 3.888e+06 s."""
    plan = one_answer(Answer(status=429, retry_after=3_888_000))
    action = next_action(plan, Rules(max_wait_s=2_592_000), elapsed_s=0)
    assert isinstance(action, Done)
    assert action.stop is not None
    assert action.stop.detail.startswith("3888000 s more to wait, and max_wait_s is 2592000 ")


def test_a_deadline_stops_before_a_wait_that_would_pass_it() -> None:
    """The caller's own schedule comes first; what was sent until then stays sent."""
    run = drive(ModelServer(), names(1200), Rules(deadline_s=6000))

    assert run.stop is not None
    assert run.stop.reason is StopReason.DEADLINE
    assert (len(run.plan.state.delivered), len(run.plan.todo)) == (600, 600)


def test_a_resumed_run_sends_only_what_is_left() -> None:
    """Stopped at a bound, the next call goes on where the first ended."""
    server = ModelServer()
    first = drive(server, names(1200), Rules(max_wait_s=5400))
    second = drive(server, names(1200), state=first.plan.state)

    assert (first.stop is None, second.stop) == (False, None)
    assert server.delivered == Counter(f"Site{number}" for number in range(1200))


def test_a_run_that_died_with_a_request_under_way_leaves_doubt() -> None:
    """Nobody saw the answer: without a key its sites are unknown, and never sent again."""
    plan = start(names(3), State(document="d", run="r", sending=Chunk(names(2), "k")), Rules())

    assert plan.state.unknown == names(2)
    assert plan.todo == names(3)[2:]


def test_a_run_that_died_repeats_its_key_while_that_is_fresh() -> None:
    """With keys the doubt can be cleared, but only as long as the API remembers them."""
    died = State(document="d", run="r", sending=Chunk(names(2), "k", sent_at=1000))
    plan = start(names(3), died, KEYED)

    fresh = without_stale_key(plan, KEYED, now=2000)
    assert next_action(fresh, KEYED, elapsed_s=0) == Send(Chunk(names(2), "k", sent_at=1000))
    stale = without_stale_key(plan, KEYED, now=1000 + 86_400)
    assert stale.state.unknown == names(2)
    # Sent by a clock that was a day and more ahead: nobody knows how long ago that was.
    ahead = without_stale_key(plan, KEYED, now=1000 - 86_400)
    assert ahead.state.unknown == names(2)


def test_a_circulation_in_doubt_is_never_cut() -> None:
    """Half of it under another key could reach sites twice: it waits whole, or stays unknown."""
    plan = start(names(100), NEW, KEYED)
    action = next_action(plan, KEYED, elapsed_s=0)
    assert isinstance(action, Send)
    plan = lost(sending(plan, action.chunk, now=0), KEYED, "connection reset")
    busy = answered(waited(plan, 1), KEYED, Answer(status=429, retry_after=5, problem=Problem(fits_now=90)))
    assert next_action(waited(busy, 5), KEYED, elapsed_s=6) == Send(busy.state.sending or action.chunk)

    capped = answered(plan, KEYED, too_large(limit=50, fits_now=50))
    assert (len(capped.state.unknown), capped.size) == (100, 50)


def test_a_repeat_waits_while_the_first_is_still_being_worked_on() -> None:
    """409 to a repeated key means the first request is under way (draft-ietf-httpapi-idempotency-key-header)."""
    plan = one_answer(Answer(status=502), KEYED)
    plan = answered(waited(plan, 1), KEYED, Answer(status=409))

    assert plan.stop is None
    assert isinstance(next_action(plan, KEYED, elapsed_s=1), Wait)


def test_a_cap_that_is_partly_taken_does_not_make_the_parts_smaller() -> None:
    """What fits now may be nothing; what can pass at once does not change by the second."""
    for fits_now in (0, 1, 300):
        plan = one_answer(too_large(limit=300, fits_now=fits_now, chunks=4), Rules(first_sites=1200), count=1200)
        assert (plan.stop, plan.size) == (None, 300)


def test_an_api_that_expands_what_it_gets_is_sent_equal_parts() -> None:
    """Its cap of 300 is not of what is sent: 10 groups of 60 sites pass in two circulations of five."""
    refused = too_large(limit=300, fits_now=300, chunks=2, requested_sites=600)
    plan = one_answer(refused, Rules(first_sites=10), count=10)
    assert (plan.stop, plan.size) == (None, 5)


def test_the_expected_wait_is_told() -> None:
    """A person who starts 1,200 sites wants to know that it takes hours before it has taken them."""
    plan = one_answer(
        too_large(limit=300, fits_now=300, chunks=4, chunk_wait=5400), Rules(first_sites=1200), count=1200
    )

    assert expected_wait_s(plan) == 3 * 5400
    assert expected_wait_s(start(names(3), NEW, Rules())) is None
