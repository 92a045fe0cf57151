"""What the client of a refused circulation is told: which cap, what fits, and when."""

from __future__ import annotations

import pytest

from fanout_guard import FanoutGuard, FanoutGuardMiddleware
from tests.asgi.driving import CAP_EXCEEDED, QUOTA_EXCEEDED, REDUCED, Recorder, body_of, guarded, post
from tests.configured import settings
from tests.sites import sites


async def test_a_circulation_over_the_cap_says_how_to_succeed() -> None:
    """The client's developer must know what to do next from the answer alone, and the connection can be used for it."""
    app = Recorder()
    sent = await post(guarded(app), body_of(1000))
    assert (sent.status, app.seen, sent.header("connection")) == (422, [], None)
    problem = sent.problem
    assert problem["type"] == CAP_EXCEEDED
    assert "retry_after" not in problem
    assert problem["violated-policies"][0] == "circulation"
    wanted = {"limit": 300, "requested_sites": 1000, "excess": 700, "fits_now": 300, "chunks": 4, "chunk_wait": 5400}
    assert {name: problem[name] for name in wanted} == wanted


async def test_chunks_follow_at_once_where_only_the_circulation_is_capped() -> None:
    """Without a document cap nothing has to be waited for."""
    problem = (await post(guarded(Recorder(), DOCUMENT=""), body_of(1000))).problem
    assert (problem["chunks"], problem["chunk_wait"], problem["violated-policies"]) == (4, 0, ["circulation"])


async def test_two_halves_do_not_get_round_the_cap() -> None:
    """250 and 250 to other sites are 500 sites of one document; the same sites again cost nothing."""
    guard = guarded(Recorder())
    assert (await post(guard, body_of(250))).status == 200
    sent = await post(guard, body_of(250, first=250))
    problem = sent.problem
    assert (sent.status, problem["type"]) == (429, QUOTA_EXCEEDED)
    assert 3600 <= problem["retry_after"] <= 5400
    wanted = {"limit": 300, "used": 250, "fits_now": 50, "excess": 200, "violated-policies": ["document"]}
    assert {name: problem[name] for name in wanted} == wanted
    assert (await post(guard, body_of(250))).status == 200
    assert (await post(guard, body_of(50, first=250))).status == 200


@pytest.mark.parametrize("reject_status", [400, 403, 413, 422, 429])
async def test_the_status_of_a_permanent_refusal_is_configured(reject_status: int) -> None:
    """And it has no Retry-After whatever it is, since no retry can succeed."""
    sent = await post(guarded(Recorder(), REJECT_STATUS=str(reject_status)), body_of(301))
    assert sent.status == reject_status
    assert sent.problem["type"] == CAP_EXCEEDED
    assert sent.header("retry-after") is None


@pytest.mark.parametrize(
    ("variables", "policy"),
    [
        ({"RATE": "200/minute"}, "rate-60"),
        ({"MAX_INFLIGHT": "200"}, "inflight"),
        ({"GLOBAL_MAX_INFLIGHT": "200"}, "inflight-global"),
        ({"DOCUMENT_MAX_SITES": "200"}, "document"),
    ],
)
async def test_what_is_larger_than_a_cap_itself_can_never_pass(variables: dict[str, str], policy: str) -> None:
    """Telling a client to wait would make it wait for ever."""
    sent = await post(guarded(Recorder(), **variables), body_of(250))
    assert (sent.status, sent.problem["violated-policies"]) == (422, [policy])
    assert sent.header("retry-after") is None
    assert sent.problem["chunks"] == 2


async def test_the_global_cap_answers_503_and_tells_nothing_of_others() -> None:
    """What all tenants have in flight is no tenant's business."""
    guard = FanoutGuard(settings(GLOBAL_MAX_INFLIGHT="300"))
    await guard.admit(tenant="other", document="d", sites=sites(200))
    sent = await post(FanoutGuardMiddleware(Recorder(), guard=guard), body_of(200))
    assert (sent.status, sent.problem["type"], sent.problem["violated-policies"]) == (503, REDUCED, ["inflight-global"])
    assert sent.header("retry-after") == "1"
    assert "used" not in sent.problem
    assert "inflight-global" not in (sent.header("ratelimit") or "")


async def test_several_refusals_name_all_and_answer_the_first_kind() -> None:
    """429 comes before 503; the wait is the longest and the room the least."""
    guard = FanoutGuard(settings(RATE="250/minute", MAX_INFLIGHT="250", GLOBAL_MAX_INFLIGHT="250"))
    await guard.admit(document="d", sites=sites(200))
    problem = (await post(FanoutGuardMiddleware(Recorder(), guard=guard), body_of(100, document="d-2"))).problem
    assert problem["violated-policies"] == ["rate-60", "inflight", "inflight-global"]
    assert problem["status"] == 429
    assert problem["fits_now"] == 50
    assert 60 <= problem["retry_after"] <= 63


async def test_a_refusal_of_head_has_no_content() -> None:
    """Not every server leaves it out itself: over HTTP/2 Granian sent what no client expects (RFC 9110, 9.3.2)."""
    guard = guarded(Recorder(), ROUTES="GET /g, POST /g", SITES="query:site", DOCUMENT="")
    for query in (b"&".join([b"site=a"] * 301), b""):
        head, get = [await post(guard, b"", path="/g", query_string=query, method=each) for each in ("HEAD", "GET")]
        assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
        assert get.body


async def test_refusals_hold_nothing_of_the_tenant_or_its_sites() -> None:
    """Answers go through logs and caches of others."""
    guard = guarded(Recorder())
    headers = [("x-tenant-id", "acme-secret")]
    await post(guard, body_of(200), headers=headers)
    for body in (body_of(301), body_of(200, first=500), b'{"Site1"', body_of(3) + b"x"):
        sent = await post(guard, body, headers=headers)
        assert b"acme-secret" not in sent.body
        assert b"Site1" not in sent.body
