"""Shadow and off, for all or for one tenant."""

from __future__ import annotations

import pytest

from tests.asgi.driving import Recorder, body_of, chunked, drive, guarded, post, scope_of


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


async def test_what_a_tenant_sends_unreadable_while_its_mode_is_off_is_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A tenant that is left alone would else be a flood in the log and in the metrics."""
    assert (await post(guarded(Recorder(), TENANT__default__MODE="off"), b"{nope")).status == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    ("body", "headers"), [(b"\x1f\x8b", [("content-encoding", "gzip")]), (b" " * 5000, []), (b"{nope", [])]
)
async def test_a_tenant_in_shadow_mode_is_refused_no_body(body: bytes, headers: list[tuple[str, str]]) -> None:
    """Its header says who it is, however little of its body can be read."""
    app = Recorder()
    guard = guarded(app, TENANT__acme__MODE="shadow", MAX_BODY_BYTES="4000")
    assert (await post(guard, body, headers=[("x-tenant-id", "acme"), *headers])).status == 200
    assert app.seen == [body]
    assert (await post(guard, body, headers=headers)).status >= 400


async def test_a_tenant_that_is_not_known_does_not_have_the_default_tenants_mode() -> None:
    """A request that names nobody is the default tenant's; one that names somebody else is not."""
    guard = guarded(Recorder(), UNKNOWN_TENANTS="reject", TENANT__default__MODE="shadow")
    assert (await post(guard, body_of(301))).status == 200
    assert (await post(guard, body_of(3), headers=[("x-tenant-id", "nobody")])).status == 403


@pytest.mark.parametrize("mode", ["shadow", "off"])
@pytest.mark.parametrize(
    ("tenant", "body", "headers"),
    [
        ("header:X-Tenant-ID", body_of(301), [("x-tenant-id", "acme"), ("x-tenant-id", "acme")]),
        ("json:tenant", b'{"tenant": "acme", "tenant": "acme", ' + body_of(301)[1:], []),
        ("json:tenant", b'{"tenant": "acme", "document_id": 1, ' + body_of(301)[1:], []),
        ("json:tenant", b'{"tenant": "acme", ' + body_of(301)[1:], [("content-encoding", "gzip")]),
        ("json:tenant", b'{"tenant": "acme", ' + body_of(301)[1:] + b" " * 5000, []),
    ],
)
async def test_a_tenant_that_cannot_be_read_does_not_have_the_default_tenants_mode(
    mode: str, tenant: str, body: bytes, headers: list[tuple[str, str]]
) -> None:
    """Else an enforced tenant that names itself twice would be let through to an application that reads one of them."""
    app = Recorder()
    guard = guarded(app, TENANT=tenant, TENANT__default__MODE=mode, MAX_BODY_BYTES="5000")
    assert 400 <= (await post(guard, body, headers=headers)).status <= 415
    assert app.scopes == []


@pytest.mark.parametrize("tenant", ["header:X-Tenant-ID", "json:tenant"])
async def test_the_default_tenants_mode_is_that_of_requests_which_name_nobody(tenant: str) -> None:
    """What cannot be read of them is passed on as it would be with a tenant's id."""
    guard = guarded(Recorder(), TENANT=tenant, TENANT__default__MODE="shadow")
    assert (await post(guard, b'{"document_id": "d-1"}')).status == 200


@pytest.mark.parametrize(("mode", "own", "status"), [("shadow", "enforce", 400), ("enforce", "shadow", 200)])
async def test_a_tenant_in_the_body_has_its_mode_where_its_list_is_ambiguous(mode: str, own: str, status: int) -> None:
    """Who asks is certain: an enforced tenant gets round its cap by no second list, and no shadowed one is refused."""
    guard = guarded(Recorder(), TENANT="json:tenant", MODE=mode, TENANT__acme__MODE=own)
    body = b'{"tenant": "acme", "target_sites": [], ' + body_of(301)[1:]
    assert (await post(guard, body)).status == status


async def test_a_tenant_can_have_its_own_mode() -> None:
    """Enforcement can begin with one tenant."""
    app = Recorder()
    guard = guarded(app, MODE="shadow", TENANT__acme__MODE="enforce", TENANT__free__MODE="off")
    statuses = [
        (await post(guard, body_of(301), headers=[("x-tenant-id", who)])).status for who in ("x", "acme", "free")
    ]
    assert statuses == [200, 422, 200]


async def test_mode_off_does_nothing_at_all() -> None:
    """Not even read the body, be it readable or not."""
    app = Recorder()
    guard = guarded(app, MODE="off")
    for body in (b"{nope", body_of(301)):
        assert (await post(guard, body)).headers == []
    assert not any("fanout_guard" in scope for scope in app.scopes)
