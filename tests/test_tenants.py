"""Which tenant counts, and where its caps come from; a user's hook can fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fanout_guard import Caps
from fanout_guard.core.model import Mode, Policy
from fanout_guard.core.policy import Policies
from fanout_guard.errors import CirculationError, UnknownTenant
from fanout_guard.settings import Settings
from fanout_guard.tenants import CapsHook, HookedCaps, Tenants


def tenants(hook: CapsHook | None = None, *, unknown: str = "own", default: str = "default", **own: Caps) -> Tenants:
    """Tenants of a deployment that names those in ``own``."""
    return Tenants(
        Policies(Settings.from_env({}).defaults(), [own], known={default}),
        default_tenant=default,
        unknown=unknown,
        overrides=None,
        hook=hook,
        hook_ttl_s=3600,
    )


async def caps_of(tenant: str, found: Tenants) -> tuple[str, int | None]:
    """The tenant that is counted, and its circulation cap."""
    counted, policy = await found.resolve(tenant)
    return counted, policy.circulation


class Hook:
    """A ``caps=`` that gives what the test says, and counts how often it was asked."""

    def __init__(self, give: Callable[[str], Any]) -> None:
        self.give = give
        self.asked: list[str] = []

    def __call__(self, tenant: str) -> Any:
        self.asked.append(tenant)
        return self.give(tenant)


@pytest.mark.parametrize("name", ["acme", "ACME", "é", "a:b", "x" * 256, "a b"])
def test_a_tenant_id_is_taken_exactly(name: str) -> None:
    """No trimming, no folding: two spellings are two tenants."""
    assert tenants().name(name) == name


@pytest.mark.parametrize("name", ["", "*", " acme", "acme ", "é" * 129, "\udc00", 7, b"acme", True])
def test_what_is_no_tenant_id_is_refused(name: Any) -> None:
    """``*`` stands for the deployment, and a padded id for a bug at the caller."""
    with pytest.raises(CirculationError, match="tenant id"):
        tenants().name(name)


def test_no_tenant_is_the_default_tenant() -> None:
    """Where there is one."""
    assert tenants().name(None) == "default"
    with pytest.raises(CirculationError):
        tenants(default="").name(None)


@pytest.mark.parametrize(
    ("unknown", "tenant", "expected"),
    [
        ("own", "new", ("new", 300)),
        ("shared", "new", ("default", 300)),
        ("shared", "acme", ("acme", 500)),
        ("reject", "acme", ("acme", 500)),
        ("reject", "default", ("default", 300)),
    ],
)
async def test_an_unknown_tenant_goes_by_the_rule(unknown: str, tenant: str, expected: tuple[str, int]) -> None:
    """Its own counters, everybody's, or none."""
    assert await caps_of(tenant, tenants(unknown=unknown, acme=Caps(max_sites=500))) == expected


async def test_a_tenant_that_must_be_known_and_is_not_is_an_error() -> None:
    """Which the edge answers with 403."""
    with pytest.raises(UnknownTenant):
        await tenants(unknown="reject").resolve("new")


@pytest.mark.parametrize("unknown", ["shared", "reject"])
async def test_the_hook_makes_a_tenant_known(unknown: str) -> None:
    """A tenant in the user's database needs no line in the environment."""
    found = tenants(lambda tenant: Caps(max_sites=7) if tenant == "new" else None, unknown=unknown)
    assert await caps_of("new", found) == ("new", 7)


async def test_a_shared_tenant_has_the_hooks_caps_of_the_default_tenant() -> None:
    """It is counted as that one, so it lives under that one's caps."""
    found = tenants(lambda tenant: Caps(max_sites=7) if tenant == "default" else None, unknown="shared")
    assert await caps_of("new", found) == ("default", 7)


async def test_the_hook_is_nearer_than_the_configuration_field_by_field() -> None:
    """A plan that says one thing leaves the rest as it was."""
    found = tenants(lambda _: Caps(max_sites=7), acme=Caps(max_sites=500, max_inflight=9))
    _, policy = await found.resolve("acme")
    assert (policy.circulation, policy.inflight, policy.document) == (7, 9, 7)


async def test_the_hooks_answer_is_kept_for_a_while() -> None:
    """The user's database is not asked for every circulation."""
    hook = Hook(lambda _: Caps(max_sites=7))
    found = tenants(hook)
    for _ in range(3):
        assert await caps_of("acme", found) == ("acme", 7)
    assert hook.asked == ["acme"]


async def test_an_answer_of_none_is_kept_too() -> None:
    """Most tenants have no plan of their own."""
    hook = Hook(lambda _: None)
    found = tenants(hook)
    for _ in range(3):
        assert await caps_of("acme", found) == ("acme", 300)
    assert hook.asked == ["acme"]


async def test_an_answer_that_is_too_old_is_asked_for_anew() -> None:
    """A changed plan holds within the time that is promised."""
    hook = Hook(lambda _: Caps(max_sites=len(hook.asked)))
    kept = HookedCaps(hook, ttl_s=0)
    assert [await kept.of("acme") for _ in range(2)] == [Caps(max_sites=1), Caps(max_sites=2)]


async def test_many_requests_at_once_ask_the_hook_once() -> None:
    """A worker's start, or an expired answer under load, must not storm the database."""

    async def later(_: str) -> Caps:
        await asyncio.sleep(0.01)
        return Caps(max_sites=7)

    hook = Hook(later)
    found = tenants(hook)
    counted = await asyncio.gather(*(caps_of("acme", found) for _ in range(50)))
    assert set(counted) == {("acme", 7)}
    assert hook.asked == ["acme"]


@pytest.mark.parametrize("given", [lambda _: 1 // 0, lambda _: 500, lambda _: {"max_sites": 5}, lambda _: Policy()])
async def test_a_hook_that_fails_leaves_what_it_gave_last(
    given: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Else the deployment's caps hold; and the log says what kind of error, not its text."""
    hook = Hook(lambda _: Caps(max_sites=7))
    kept = HookedCaps(hook, ttl_s=0)
    await kept.of("acme")
    hook.give = given
    assert await kept.of("acme") == Caps(max_sites=7)
    assert await kept.of("never-seen") == Caps()
    assert "caps= failed" in caplog.text
    assert "by zero" not in caplog.text


@pytest.mark.parametrize("unknown", ["shared", "reject"])
async def test_a_hook_that_has_never_answered_makes_no_tenant_unknown(unknown: str) -> None:
    """A worker that starts while the user's database is down must not refuse every tenant that only that one names."""
    hook = Hook(lambda _: 1 // 0)
    found = tenants(hook, unknown=unknown)
    assert await caps_of("acme", found) == ("acme", 300)


async def test_a_tenant_that_the_hook_did_not_know_stays_unknown_while_it_fails() -> None:
    """Its last answer holds, and that was no."""
    hook = Hook(lambda _: None)
    kept = HookedCaps(hook, ttl_s=0)
    assert await kept.of("nobody") is None
    hook.give = lambda _: 1 // 0
    assert await kept.of("nobody") is None


async def test_the_log_says_what_a_hook_gave_instead_of_caps(caplog: pytest.LogCaptureFixture) -> None:
    """A row of the database in place of ``Caps`` is an easy slip; "TypeError" alone does not lead to it."""
    hook = Hook(lambda _: {"max_sites": 5})
    assert await HookedCaps(hook, ttl_s=0).of("acme") == Caps()
    assert "caps= failed and the last caps hold: it gave dict, not Caps or None" in caplog.text


class Panic(BaseException):
    """As extension modules written in Rust raise it, over a token that nobody foresaw, say."""


@pytest.mark.parametrize("error", [Panic(), asyncio.CancelledError()])
async def test_a_hook_that_panics_leaves_what_it_gave_last(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What a hook raises is no matter of its base class: it once came out as a 500, or without a word in the log."""

    def panic(_: str) -> Caps:
        raise error

    assert await HookedCaps(panic, ttl_s=0).of("acme") == Caps()
    assert f"caps= failed and the last caps hold: {type(error).__name__}" in caplog.text


async def test_a_hook_that_hangs_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that does not answer must not stop publishing, nor get a question per request; the log says so."""
    monkeypatch.setattr("fanout_guard.tenants.HOOK_WAIT_S", 0.01)
    never = asyncio.Event()
    hook = Hook(lambda _: never.wait())
    kept = HookedCaps(hook, ttl_s=3600)
    assert [await kept.of("acme") for _ in range(3)] == [Caps()] * 3
    assert hook.asked == ["acme"]
    assert "caps= failed and the last caps hold: no answer within 0.01 s" in caplog.text
    never.set()
    await asyncio.sleep(0)


async def test_one_request_that_leaves_does_not_take_the_others_answer_away() -> None:
    """They wait for the same question."""
    go = asyncio.Event()

    async def later(_: str) -> Caps:
        await go.wait()
        return Caps(max_sites=7)

    found = tenants(Hook(later))
    leaving, staying = (asyncio.create_task(caps_of("acme", found)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await staying == ("acme", 7)
    assert leaving.cancelled()


async def test_what_is_kept_of_the_hook_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that make up tenants must not fill the memory."""
    monkeypatch.setattr("fanout_guard.tenants._HOOKED_AT_MOST", 3)
    hook = Hook(lambda _: None)
    kept = HookedCaps(hook, ttl_s=3600)
    for number in range(10):
        await kept.of(str(number))
    assert len(kept._kept) == 3
    await kept.of("9")
    await kept.of("0")
    assert hook.asked[10:] == ["0"]


async def test_the_deployments_own_mode_is_for_requests_without_a_tenant() -> None:
    """Whether what cannot be read is refused must not hang on one tenant."""
    found = tenants(acme=Caps(mode="shadow"))
    assert await found.mode(None) is Mode.ENFORCE
    assert await found.mode("acme") is Mode.SHADOW
