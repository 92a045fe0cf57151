"""What an application, its clients and its server see of the guard."""

from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from fanout_guard import Admission, Circulation, FanoutGuard, FanoutGuardMiddleware, Settings
from fanout_guard.testing import RecordedDecisions
from fanout_guard.types import Message, Receive, Scope, Send
from tests.asgi.driving import Recorder, Sent, body_of, chunked, drive, guarded, post, scope_of, sites

CAP_EXCEEDED = "urn:problem-type:fanout-guard:circulation-cap-exceeded"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


def detail(kind: str) -> str:
    """A problem type of ours."""
    return f"urn:problem-type:fanout-guard:{kind}"


async def test_the_app_gets_the_same_bytes() -> None:
    """Reading must not consume, and must not write the body anew."""
    app = Recorder()
    body = b' {"target_sites" : ["a\\/b", 1.0,1e2 ], "document_id":"d"}\r\n'
    sent = await post(guarded(app), body)
    assert sent.status == 200
    assert app.seen == [body]


@pytest.mark.parametrize(("count", "status"), [(299, 200), (300, 200), (301, 422)])
async def test_a_body_in_several_messages_is_counted_whole(count: int, status: int) -> None:
    """Counting a prefix would let the rest pass; one cut lies inside a character."""
    app, body = Recorder(), body_of(count)
    inside = body.index("…".encode()) + 1
    sent = await drive(guarded(app), scope_of(), chunked(body, inside, len(body) - 9))
    assert sent.status == status
    assert app.seen == ([body] if status == 200 else [])


async def test_after_the_body_the_app_has_the_real_receive() -> None:
    """An application that waits for its client to leave learns it at once."""
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    await drive(guarded(app), scope_of(), chunked(body_of(3)), then=leave)
    assert left.is_set()


async def test_half_a_body_circulates_nothing() -> None:
    """A client that leaves while it sends has not asked for anything."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    messages = [*chunked(body_of(300), 40)[:1], {"type": "http.disconnect"}]
    sent = await drive(guard, scope_of(), messages)
    assert (sent.messages, app.seen) == ([], [])
    assert (await guard.guard.usage())["rate-60"].used == 0


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "something-new"])
async def test_other_scopes_go_through_untouched(kind: str) -> None:
    """Start-up and sockets are none of the guard's business: same objects, and no look at other keys."""
    got: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": kind}
    await guarded(app)(scope, receive, send)
    assert [id(one) for one in got] == [id(scope), id(receive), id(send)]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "PUT"])
async def test_unguarded_methods_cost_nothing(method: str) -> None:
    """Preflights must not burn quota."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    for _ in range(500):
        assert (await post(guard, body_of(300), method=method)).status == 200
    assert (await post(guard, body_of(300))).status == 200


async def test_context_variables_of_the_app_are_seen_outside() -> None:
    """The app runs in the same task."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

    async def set_it(scope: Scope) -> None:
        variable.set("set by the app")

    app = guarded(Recorder(before=set_it))
    seen = ""

    async def outside(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal seen
        await app(scope, receive, send)
        seen = variable.get()

    await post(outside, body_of(3))
    assert seen == "set by the app"


async def test_a_response_is_streamed_and_gets_its_fields_once() -> None:
    """Chunks, trailers and unknown messages go on unchanged, and nothing is held back."""
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")], "trailers": True},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b", "more_body": True},
        {"type": "http.response.body", "body": b"c"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.pathsend", "path": "/tmp/x"},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    sent = await post(guarded(app), body_of(3))
    assert sent.messages[1:] == messages[1:]
    assert sent.header("ratelimit-policy")
    assert sent.header("x-own") == "1"
    assert sent.messages[0]["trailers"] is True


async def test_fields_of_the_app_stand() -> None:
    """No field that the application set is dropped or doubled, whatever its case."""
    app = Recorder(headers=[(b"RateLimit", b'"own";r=1'), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    sent = await post(guarded(app), body_of(3))
    assert sent.header("ratelimit") == '"own";r=1'
    assert [value for name, value in sent.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert sent.header("ratelimit-policy")


async def test_the_lease_lasts_until_background_work_is_done_and_comes_back_once() -> None:
    """A background task is part of the request; the response does not wait for it."""
    events: list[str] = []
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        await asyncio.sleep(0.01)
        events.append(f"in background {(await guard.usage())['inflight'].used}")

    await post(FanoutGuardMiddleware(app, guard=guard), body_of(200))
    assert events == ["in background 200"]
    assert (await guard.usage())["inflight"].used == 0


@pytest.mark.parametrize("end", ["raises", "cancelled"])
async def test_the_lease_comes_back_however_the_app_ends(end: str) -> None:
    """A leaked lease would block the tenant for a minute."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        if end == "raises":
            raise RuntimeError("the app failed")
        await asyncio.Event().wait()

    request = asyncio.ensure_future(post(FanoutGuardMiddleware(app, guard=guard), body_of(200)))
    await started.wait()
    request.cancel()
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        await request
    assert (await guard.usage())["inflight"].used == 0


async def test_held_work_keeps_its_lease_after_the_response() -> None:
    """What a queue does later is still in flight; whoever does it releases it by its id."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))
    held: list[Admission] = []

    async def hold(scope: Scope) -> None:
        held.append(scope["fanout_guard"])
        await scope["fanout_guard"].hold(60)

    app = FanoutGuardMiddleware(Recorder(before=hold), guard=guard)
    assert (await post(app, body_of(200))).status == 200
    assert (await post(app, body_of(200, document="d-2"))).status == 429
    assert await guard.release(held[0].tenant, held[0].lease_id)
    assert not await guard.release(held[0].tenant, held[0].lease_id)
    assert (await post(app, body_of(200, document="d-2"))).status == 200


@pytest.mark.parametrize(("status", "refunded"), [(200, 0), (201, 0), (302, 1), (404, 1), (422, 1), (500, 0), (503, 0)])
async def test_a_response_that_did_not_circulate_is_refunded(status: int, refunded: int) -> None:
    """An application that refuses has not circulated; one that fails may have."""
    guard = guarded(Recorder(status=status), RATE="300/minute")
    await post(guard, body_of(300))
    assert (await guard.guard.usage())["rate-60"].used == 300 * (1 - refunded)
    assert (await guard.guard.usage(document="d-1"))["document"].used == 300 * (1 - refunded)


@pytest.mark.parametrize("started", [False, True])
async def test_an_app_that_raises_counts_as_status_500(started: bool) -> None:
    """Whether it is refunded is the deployment's choice."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the app failed")

    for refund_on, used in (("3xx,4xx", 300), ("500", 0)):
        guard = guarded(app, RATE="300/minute", REFUND_ON=refund_on)
        with pytest.raises(RuntimeError):
            await post(guard, body_of(300))
        assert (await guard.guard.usage())["rate-60"].used == used


async def test_a_circulation_over_the_cap_says_how_to_succeed() -> None:
    """The client's developer must know what to do next from the answer alone."""
    app = Recorder()
    sent = await post(guarded(app), body_of(1000))
    assert (sent.status, app.seen) == (422, [])
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


async def test_the_fields_are_the_drafts() -> None:
    """Clients parse them as RFC 9651 lists."""
    sent = await post(guarded(Recorder()), body_of(250))
    policies = '"circulation";q=300;qu="sites", "document";q=300;w=3600;qu="sites"'
    assert sent.header("ratelimit-policy") == policies
    field = sent.header("ratelimit")
    assert field is not None
    assert field.startswith('"document";r=50;t=')
    assert 0 < int(field.rpartition("=")[2]) <= 5400


async def test_fields_can_be_left_out() -> None:
    """A deployment that wants no fields gets none, on refusals neither."""
    for count in (3, 301):
        sent = await post(guarded(Recorder(), HEADERS="false"), body_of(count))
        assert not [name for name, _ in sent.headers if name.startswith("ratelimit")]


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
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": "300"}))
    await guard.admit(tenant="other", document="d", sites=sites(200))
    sent = await post(FanoutGuardMiddleware(Recorder(), guard=guard), body_of(200))
    assert (sent.status, sent.problem["type"], sent.problem["violated-policies"]) == (503, REDUCED, ["inflight-global"])
    assert sent.header("retry-after") == "1"
    assert "used" not in sent.problem
    assert "inflight-global" not in (sent.header("ratelimit") or "")


async def test_several_refusals_name_all_and_answer_the_first_kind() -> None:
    """429 comes before 503; the wait is the longest and the room the least."""
    variables = {"RATE": "250/minute", "MAX_INFLIGHT": "250", "GLOBAL_MAX_INFLIGHT": "250"}
    guard = FanoutGuard(Settings.from_env({f"FANOUT_GUARD_{name}": text for name, text in variables.items()}))
    await guard.admit(document="d", sites=sites(200))
    problem = (await post(FanoutGuardMiddleware(Recorder(), guard=guard), body_of(100, document="d-2"))).problem
    assert problem["violated-policies"] == ["rate-60", "inflight", "inflight-global"]
    assert problem["status"] == 429
    assert problem["fits_now"] == 50
    assert 60 <= problem["retry_after"] <= 63


async def test_an_empty_list_passes_and_charges_nothing() -> None:
    """Also for a tenant that is at its cap."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    assert (await post(guard, body_of(300))).status == 200
    assert (await post(guard, body_of(0))).status == 200
    assert (await post(guard, body_of(1))).status == 429
    zero = guarded(app, MAX_SITES="0")
    assert (await post(zero, body_of(0))).status == 200
    sent = await post(zero, body_of(1))
    assert (sent.status, "chunks" in sent.problem) == (422, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{}",
        b"{nope",
        b"[]",
        b"null",
        b"3",
        b'{"document_id":"d"}',
        b'{"target_sites":["a"]}',
        b'{"document_id":"","target_sites":["a"]}',
        b'{"document_id":1.5,"target_sites":["a"]}',
        b'{"document_id":"d","target_sites":"Site1"}',
        b'{"document_id":"d","target_sites":{"a":1}}',
        b'{"document_id":"d","target_sites":[["a"],["b"]]}',
        b'{"document_id":"d","target_sites":["\\ud800"]}',
        b'{"document_id":"d","target_sites":[1],"target_sites":[2]}',
        b'{"document_id":"d","target_sites":[1],"Target_Sites":[2]}',
        b'{"document_id":"d","target_sites":[NaN]}',
        b'{"document_id":"d","target_sites":["a"]}{}',
        b'\xef\xbb\xbf{"document_id":"d","target_sites":["a"]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"document_id":"d","target_sites":["a"]}',
    ],
)
async def test_what_cannot_be_read_for_certain_is_refused(body: bytes) -> None:
    """Never counted low, never a 500, and nothing is charged."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    sent = await post(guard, body)
    assert (sent.status, sent.problem["type"]) == (400, detail("unreadable-circulation"))
    assert app.seen == []
    assert (await guard.guard.usage())["rate-60"].used == 0


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/octet-stream", 'a/b; charset="UTF-8"', "a/b;charset=us-ascii"]
)
async def test_no_content_type_switches_the_guard_off(content_type: str | None) -> None:
    """Frameworks read JSON under any type."""
    headers = [("content-type", content_type)] if content_type else []
    assert (await post(guarded(Recorder()), body_of(301), headers=headers)).status == 422


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-encoding", "gzip"),
        ("Content-Encoding", "identity, br"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("content-type", "application/json; charset=utf-7"),
        ("content-type", "application/json; charset=utf-8; charset=utf-16"),
        ("content-type", 'application/json; Charset="ibm037"'),
        ("content-type", "application/json; charset=bogus"),
        ("content-type", "application/json; charset*=utf-8''utf-7"),
        ("content-type", "application/json; charset*0=ut; charset*1=f-7"),
        ("content-type", "application/json; charset=utf-8x"),
        ("content-type", 'application/json; charset="utf-8" utf-7'),
    ],
)
async def test_what_the_guard_does_not_decode_is_refused(name: str, value: str) -> None:
    """A compressed list could have any length."""
    sent = await post(guarded(Recorder()), body_of(3), headers=[(name, value)])
    assert (sent.status, sent.problem["type"]) == (415, detail("unsupported-encoding"))


async def test_json_that_is_declared_a_form_is_told_what_to_declare() -> None:
    """As by ``curl -d``: that it should send JSON tells nobody anything who does."""
    sent = await post(guarded(Recorder()), body_of(3), headers=[("content-type", "application/x-www-form-urlencoded")])
    assert sent.problem["detail"] == "The Content-Type says that the body is a form. Send JSON, as application/json."


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_its_bound_is_refused(declared: bool) -> None:
    """Whether the client says so or just sends."""
    app = Recorder()
    body = body_of(300) + b" " * 5000
    headers = [("content-length", str(len(body)))] if declared else []
    scope = scope_of(headers=headers)
    messages = chunked(body, *range(500, len(body), 500))
    sent = await drive(guarded(app, MAX_BODY_BYTES="4000"), scope, messages)
    assert (sent.status, sent.problem["type"]) == (413, detail("body-too-large"))
    assert app.seen == []
    assert sent.header("connection") is None


async def test_an_upload_without_end_is_not_waited_for() -> None:
    """The answer says that the connection closes, where the rest was not read."""
    chunk: Message = {"type": "http.request", "body": b" " * 65536, "more_body": True}

    async def endless() -> Message:
        return chunk

    sent = await drive(guarded(Recorder()), scope_of(), [], then=endless)
    assert (sent.status, sent.header("connection")) == (413, "close")


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Tenant-ID", "victim"), ("x-tenant-id", "me")],
        [("X-Tenant-ID", "me, victim")],
        [("X-Tenant-ID", "x" * 257)],
        [("X-Tenant-ID", "\xff\xfe")],
    ],
)
async def test_a_tenant_that_is_not_certain_is_refused(headers: list[tuple[str, str]]) -> None:
    """Choosing one of two would let a client spend another's quota."""
    sent = await post(guarded(Recorder()), body_of(3), headers=headers)
    assert (sent.status, sent.problem["type"]) == (400, detail("tenant-unidentified"))


async def test_a_request_without_a_tenant_counts_for_the_default_or_is_refused() -> None:
    """As the deployment says."""
    app = Recorder()
    assert (await post(guarded(app), body_of(3))).status == 200
    assert app.scopes[0]["fanout_guard"].tenant == "default"
    assert (await post(guarded(app, DEFAULT_TENANT=""), body_of(3))).status == 400


async def test_a_client_that_names_no_tenant_is_told_where_one_is_expected() -> None:
    """The answer is all that it has; a hook may look anywhere, so there it cannot be told."""
    sent = await post(guarded(Recorder(), DEFAULT_TENANT=""), body_of(3))
    assert sent.problem["type"] == detail("tenant-unidentified")
    assert sent.problem["detail"].endswith("; expected the header 'X-Tenant-ID'.")
    settings = Settings.from_env({"FANOUT_GUARD_DEFAULT_TENANT": ""})
    hooked = FanoutGuardMiddleware(Recorder(), settings=settings, tenant=lambda _: None)
    assert "expected" not in (await post(hooked, body_of(3))).problem["detail"]


async def test_header_names_have_any_case() -> None:
    """Servers lower them, test clients do not."""
    app = Recorder()
    for name in ("X-Tenant-ID", "x-tenant-id", "X-TENANT-ID"):
        await post(guarded(app), body_of(3), headers=[(name, "acme")])
    assert [scope["fanout_guard"].tenant for scope in app.scopes] == ["acme"] * 3


async def test_unknown_tenants_are_refused_or_share_one_bucket() -> None:
    """A free choice of tenant would be a free choice of counters."""
    app = Recorder()
    reject = guarded(app, UNKNOWN_TENANTS="reject", TENANTS='{"acme": {"max_sites": 10}}')
    assert (await post(reject, body_of(3), headers=[("x-tenant-id", "acme")])).status == 200
    assert (await post(reject, body_of(3))).status == 200
    sent = await post(reject, body_of(3), headers=[("x-tenant-id", "nobody")])
    assert (sent.status, sent.problem["type"]) == (403, detail("tenant-unknown"))
    shared = guarded(app, UNKNOWN_TENANTS="shared", RATE="300/minute")
    assert (await post(shared, body_of(200), headers=[("x-tenant-id", "one")])).status == 200
    assert (await post(shared, body_of(200), headers=[("x-tenant-id", "two")])).status == 429


async def test_shadow_mode_refuses_nothing_and_charges_nothing_over_a_cap() -> None:
    """Not even what cannot be read; what would have been refused is on the admission."""
    app = Recorder()
    guard = guarded(app, MODE="shadow", RATE="300/minute")
    for body in (body_of(301), b"{nope", body_of(300, document="d-2"), body_of(1, document="d-3")):
        assert (await post(guard, body)).status == 200
    shadowed = [scope["fanout_guard"].shadowed for scope in app.scopes if "fanout_guard" in scope]
    assert shadowed == [["circulation", "document", "rate-60"], [], ["rate-60"]]
    assert (await guard.guard.usage())["rate-60"].used == 300
    assert len(app.seen) == 4
    assert (await drive(guard, scope_of(headers=[("content-encoding", "gzip")]), chunked(b"\x1f\x8b"))).status == 200
    assert app.seen[-1] == b"\x1f\x8b"


async def test_shadow_mode_passes_on_a_body_over_its_bound_unharmed() -> None:
    """The guard must not become a limit of its own."""
    app = Recorder()
    body = body_of(300) + b" " * 5000
    sent = await drive(guarded(app, MODE="shadow", MAX_BODY_BYTES="4000"), scope_of(), chunked(body, 3000, 6000))
    assert (sent.status, app.seen) == (200, [body])


async def test_what_shadow_mode_passes_on_unread_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Its client is told nothing, so that whoever is to enforce learns here who has to change what."""
    known = {"TENANT__acme__MAX_SITES": "10", "UNKNOWN_TENANTS": "reject"}
    guard = guarded(Recorder(), MODE="shadow", **known)
    await post(guard, b'{"document_id": "d-1"}', headers=[("x-tenant-id", "acme")])
    await post(guard, body_of(3), headers=[("x-tenant-id", "nobody")])
    assert [record.getMessage() for record in caplog.records] == [
        "request unreadable: tenant=acme policy=unreadable-circulation"
        " detail=\"The list of sites is missing; expected the member 'target_sites'.\"",
        'request unreadable: tenant=nobody policy=tenant-unknown detail="This tenant may not circulate here."',
    ]


async def test_a_tenant_that_is_not_known_does_not_have_the_default_tenants_mode() -> None:
    """A request that names nobody is the default tenant's; one that names somebody else is not."""
    guard = guarded(Recorder(), UNKNOWN_TENANTS="reject", TENANT__default__MODE="shadow")
    assert (await post(guard, body_of(301))).status == 200
    assert (await post(guard, body_of(3), headers=[("x-tenant-id", "nobody")])).status == 403


async def test_a_tenant_can_have_its_own_mode() -> None:
    """Enforcement can begin with one tenant."""
    app = Recorder()
    guard = guarded(app, MODE="shadow", TENANT__acme__MODE="enforce", TENANT__free__MODE="off")
    statuses = [
        (await post(guard, body_of(301), headers=[("x-tenant-id", who)])).status for who in ("x", "acme", "free")
    ]
    assert statuses == [200, 422, 200]


async def test_mode_off_does_nothing_at_all() -> None:
    """Not even read the body."""
    app = Recorder()
    sent = await post(guarded(app, MODE="off"), b"{nope")
    assert sent.headers == []
    assert "fanout_guard" not in app.scopes[0]


async def test_installed_twice_decides_once() -> None:
    """An application and a sub-application that it mounts may both have it."""
    app = Recorder()
    settings = Settings.from_env({"FANOUT_GUARD_RATE": "300/minute", "FANOUT_GUARD_ROUTES": "POST /v1/circulate"})
    guard = FanoutGuard(settings)
    inner = FanoutGuardMiddleware(app, guard=guard)
    outer = FanoutGuardMiddleware(Starlette(routes=[Mount("/v1", app=inner)]), guard=guard)
    sent = await post(outer, body_of(200), path="/v1/circulate")
    assert sent.status == 200
    assert (await guard.usage())["rate-60"].used == 200


async def test_a_request_that_an_outer_layer_sends_through_again_is_decided_again() -> None:
    """A layer that tries again what failed, or what was refused, circulates once more with the scope that it has."""
    app = Recorder(status=500)
    guard = guarded(app, RATE="400/minute")
    scope = scope_of()
    assert [(await drive(guard, scope, chunked(body_of(200)))).status for _ in range(3)] == [500, 500, 429]
    assert [(await drive(guard, scope, chunked(body_of(301)))).status for _ in range(2)] == [422, 422]
    assert len(app.seen) == 2


async def test_a_guard_inside_a_mounted_application_guards() -> None:
    """The path a router leaves is the path that counts."""
    inner = guarded(Recorder())
    app = Starlette(routes=[Mount("/api", app=inner)])
    assert (await post(app, body_of(301), path="/api/circulate-document")).status == 422


async def test_an_idempotent_repeat_is_charged_once() -> None:
    """The same key with another circulation is charged as usual."""
    guard = guarded(Recorder(), RATE="400/minute", IDEMPOTENCY_HEADER="Idempotency-Key")
    key = [("Idempotency-Key", "k-1")]
    for _ in range(3):
        assert (await post(guard, body_of(200), headers=key)).status == 200
    assert (await guard.guard.usage())["rate-60"].used == 200
    assert (await post(guard, body_of(201), headers=key)).status == 429
    assert (await post(guard, body_of(200))).status == 200


async def test_hooks_say_what_settings_cannot() -> None:
    """A tenant from a token, sites from a group: sync or async."""
    app = Recorder()

    async def tenant(scope: Scope) -> str | None:
        return "from-token"

    def circulation(scope: Scope, body: bytes) -> Circulation:
        return Circulation(document="d", sites=sites(int(json.loads(body)["group_size"])))

    guard = FanoutGuardMiddleware(app, settings=Settings(), tenant=tenant, circulation=circulation)
    assert (await post(guard, b'{"group_size": 300}')).status == 200
    assert (await post(guard, b'{"group_size": 301}')).status == 422
    assert app.scopes[0]["fanout_guard"].tenant == "from-token"


@pytest.mark.parametrize("given", [RuntimeError("secret"), None, 5, "text", [1], {"sites": []}])
async def test_a_hook_that_fails_refuses_with_503(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Never a 500, never its words, and nothing is charged."""

    def circulation(scope: Scope, body: bytes) -> Circulation:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[no-any-return]

    app = Recorder()
    sent = await post(FanoutGuardMiddleware(app, settings=Settings(), circulation=circulation), body_of(3))
    assert (sent.status, sent.problem["type"], sent.header("retry-after")) == (503, REDUCED, "1")
    assert b"secret" not in sent.body
    assert app.seen == []


@pytest.mark.parametrize("given", [RuntimeError("secret"), "", 5, ["a"], "*", "x" * 300])
async def test_a_tenant_hook_that_fails_refuses(given: Any) -> None:
    """Nobody is charged for somebody whom the hook cannot name."""

    def tenant(scope: Scope) -> str:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[no-any-return]

    sent = await post(FanoutGuardMiddleware(Recorder(), settings=Settings(), tenant=tenant), body_of(3))
    assert sent.status == 503
    assert b"secret" not in sent.body


async def test_a_hook_that_awaits_what_was_cancelled_fails(caplog: pytest.LogCaptureFixture) -> None:
    """It is no cancellation of the request, which would end as a 500."""

    async def tenant(scope: Scope) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    sent = await post(FanoutGuardMiddleware(Recorder(), settings=Settings(), tenant=tenant), body_of(3))
    assert sent.status == 503
    assert "tenant= failed" in caplog.text


async def test_a_hook_that_fails_says_so_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A client may have chosen the error's text, and sends as many requests as it likes."""

    def circulation(scope: Scope, body: bytes) -> Circulation:
        raise ValueError(f"no such group: {json.loads(body)['group']}")

    app = FanoutGuardMiddleware(Recorder(), settings=Settings(), circulation=circulation)
    for _ in range(5):
        assert (await post(app, json.dumps({"group": "x\noutage began: forged"}).encode())).status == 503
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.exc_info is None
    line = record.getMessage()
    assert line.startswith("circulation= failed and its request was not decided: ValueError: no such group: x\\n")
    assert "\n" not in line


async def test_refusals_are_answers_between_function_middlewares() -> None:
    """A refusal that was raised would become a 500 there."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def circulate(request: Request) -> JSONResponse:
        return JSONResponse(len((await request.json())["target_sites"]))

    app = Starlette(
        routes=[Route("/circulate-document", circulate, methods=["POST"])],
        middleware=[
            Middleware(Passing),
            Middleware(FanoutGuardMiddleware, settings=Settings(max_body_bytes=20_000)),
            Middleware(Passing),
        ],
    )
    assert (await post(app, body_of(300))).body == b"300"
    assert (await post(app, body_of(301))).status == 422
    assert (await post(app, body_of(300) + b" " * 20_000)).status == 413


async def test_cors_outside_the_guard_lets_browsers_read_refusals() -> None:
    """A refusal without the origin's permission is an opaque error in a browser."""
    cors = CORSMiddleware(guarded(Recorder()), allow_origins=["https://a.example"], expose_headers=["Retry-After"])
    sent = await post(cors, body_of(301), headers=[("origin", "https://a.example")])
    assert (sent.status, sent.header("access-control-allow-origin")) == (422, "https://a.example")


async def test_refusals_hold_nothing_of_the_tenant_or_its_sites() -> None:
    """Answers go through logs and caches of others."""

    def check(sent: Sent) -> None:
        assert b"acme-secret" not in sent.body
        assert b"Site1" not in sent.body

    guard = guarded(Recorder())
    headers = [("x-tenant-id", "acme-secret")]
    await post(guard, body_of(200), headers=headers)
    for body in (body_of(301), body_of(200, first=500), b'{"Site1"', body_of(3) + b"x"):
        check(await post(guard, body, headers=headers))


async def test_one_guard_serves_several_applications() -> None:
    """They share its counters."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_RATE": "300/minute"}))
    one, two = (FanoutGuardMiddleware(Recorder(), guard=guard) for _ in range(2))
    assert (await post(one, body_of(200))).status == 200
    assert (await post(two, body_of(200))).status == 429
    for given in ({"settings": Settings()}, {"caps": lambda _: None}, {"on_decision": RecordedDecisions()}):
        with pytest.raises(TypeError, match="brings its own"):
            FanoutGuardMiddleware(Recorder(), guard=guard, **given)


async def test_the_admission_says_what_was_counted() -> None:
    """Applications log it, and hold or refund by it."""
    app = Recorder()
    await post(guarded(app), body_of(3), headers=[("x-tenant-id", "acme")])
    admission: Admission = app.scopes[0]["fanout_guard"]
    seen = (admission.tenant, admission.document, admission.sites, admission.degraded, admission.shadowed)
    assert seen == ("acme", "d-1", 3, False, [])
    with pytest.raises(ValueError, match="hold"):
        await admission.hold(0)


async def test_the_time_in_the_fields_is_that_of_the_refusals() -> None:
    """A client that paces itself by the field must not wait longer than one that is refused."""
    guard = guarded(Recorder())
    field = (await post(guard, body_of(250))).header("ratelimit")
    refused = (await post(guard, body_of(250, first=250))).problem["retry_after"]
    assert field is not None
    assert int(field.rpartition("=")[2]) - refused in (0, 1)
