"""Whom a request is counted for, by its header or by default, or why for nobody."""

from __future__ import annotations

import pytest

from fanout_guard import FanoutGuardMiddleware, Settings
from tests.asgi.driving import Recorder, body_of, detail, guarded, post


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
