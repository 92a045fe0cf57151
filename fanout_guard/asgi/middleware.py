"""The ASGI middleware: in which order one request is read, decided on, and answered or passed on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, TypeAlias, TypeGuard, TypeVar

from fanout_guard.admission import Admission
from fanout_guard.asgi.body import BodyTooLarge, ClientGone, RequestBody, UnsupportedEncoding, check_head
from fanout_guard.asgi.responder import Field, Responder, respond
from fanout_guard.asgi.route import Routes, root_path_of
from fanout_guard.core.circulation import Circulation
from fanout_guard.core.extract import TENANT_UNIDENTIFIED, Extract, Reader, Unreadable
from fanout_guard.core.headers import ratelimit, ratelimit_policy
from fanout_guard.core.model import OFF, Decision, Mode
from fanout_guard.core.problem import UnreadableKind, refusal, unavailable, unreadable
from fanout_guard.core.routes import PathParams
from fanout_guard.core.source import header_values, parse_source, parse_sources
from fanout_guard.core.words import sentence
from fanout_guard.errors import CirculationError, UnknownTenant
from fanout_guard.guard import FanoutGuard
from fanout_guard.observe.failures import Failures, check_hook, must_pass
from fanout_guard.observe.hooks import OnDecision
from fanout_guard.observe.text import where
from fanout_guard.settings import Settings
from fanout_guard.tenants import CapsHook
from fanout_guard.types import ASGIApp, Receive, Scope, Send

T = TypeVar("T")

TenantHook: TypeAlias = Callable[[Scope], "str | Awaitable[str | None] | None"]
CirculationHook: TypeAlias = Callable[[Scope, bytes], "Circulation | Awaitable[Circulation]"]

SCOPE_KEY = "fanout_guard"
_SEEN = "fanout_guard.seen"
# How much of a refused upload is still received: a client whose connection closes while it sends reads no answer.
_DRAIN_BYTES = 16 << 20
_DRAIN_S = 5.0


class FanoutGuardMiddleware:
    """Guards the configured routes of an ASGI application.

    Pass either ``guard``, which several applications may share, or what the middleware makes one from: ``settings`` (by
    default those of the environment), ``caps`` and ``on_decision``, as FanoutGuard takes them. The hooks ``tenant``
    (scope → id or None) and ``circulation`` (scope, body → Circulation) say what settings cannot. All four hooks may be
    async. Raises ConfigurationError if the settings are wrong, and TypeError if a hook is not a function, ``guard`` is
    no FanoutGuard, or it is combined with something that it brings itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings | None = None,
        guard: FanoutGuard | None = None,
        tenant: TenantHook | None = None,
        circulation: CirculationHook | None = None,
        caps: CapsHook | None = None,
        on_decision: OnDecision | None = None,
    ) -> None:
        if guard is not None and any(each is not None for each in (settings, caps, on_decision)):
            raise TypeError("guard= brings its own settings, caps= and on_decision=; pass them to FanoutGuard instead")
        if guard is not None and not isinstance(guard, FanoutGuard):
            raise TypeError(f"guard= is of type {type(guard).__name__}; expected a FanoutGuard")
        for name, hook in (("tenant=", tenant), ("circulation=", circulation)):
            if hook is not None:
                check_hook(name, hook)
        self.app = app
        self.guard = guard = FanoutGuard(settings, caps=caps, on_decision=on_decision) if guard is None else guard
        settings = guard.settings
        self._off = settings.mode is OFF
        self._routes = Routes(settings.routes, root_path=root_path_of(app))
        self._tenant_hook = tenant
        self._circulation_hook = circulation
        source = parse_source(settings.tenant)
        self._tenant_expected = f"; expected {source}" if tenant is None else ""
        self._failures = Failures()
        self._reader = Reader(
            tenant=source if tenant is None else None,
            document=parse_source(settings.document) if settings.document else None,
            sites=parse_sources(settings.sites) if circulation is None else (),
        )
        self._max_body = settings.max_body_bytes
        self._reject_status = settings.reject_status
        self._with_fields = settings.headers
        self._idempotency_header = settings.idempotency_header.lower().encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        params = None if self._off or scope["type"] != "http" else self._routes.match(scope)
        if params is None or _SEEN in scope:
            await self.app(scope, receive, send)
            return
        scope[_SEEN] = True
        try:
            await self._guard(scope, params, receive, send)
        finally:
            # A layer outside may send the request through again (a retry, say): that is another circulation.
            scope.pop(_SEEN, None)

    async def _guard(self, scope: Scope, params: PathParams, receive: Receive, send: Send) -> None:
        body = RequestBody(receive, self._max_body)
        try:
            decision = await self._decide(await self._ask(scope, params, body), scope)
        except ClientGone:
            return
        except _Refused as refused:
            await self._refuse(refused, scope, body, send)
            return
        if decision.admitted:
            await self._run(decision, scope, body.receive, send)
        else:
            await respond(refusal(decision, self._reject_status), self._fields(decision), scope, send)

    async def _ask(self, scope: Scope, params: PathParams, body: RequestBody) -> Extract:
        """Read who asks for what; raises ClientGone, or _Refused where that cannot be told."""
        tenant, read = None, False
        try:
            if self._tenant_hook is None:
                tenant = self._reader.tenant(scope, params)
            else:
                tenant = await self._hooked("tenant=", self._tenant_hook, (scope,), _a_tenant)
            read = not self._reader.tenant_in_body
            check_head(scope["headers"], self._max_body)
            raw = await body.read()
            asked = self._reader.read_on(tenant, scope, params, raw)
            tenant, read = asked.tenant, True
            if self._circulation_hook is not None:
                hooked = await self._hooked("circulation=", self._circulation_hook, (scope, raw), _a_circulation)
                asked = Extract(tenant, hooked)
        except Unreadable as error:
            raise _Refused(error.kind, error.detail, error.tenant, tenant_read=error.tenant_read) from None
        except UnsupportedEncoding as error:
            raise _Refused("unsupported-encoding", str(error), tenant, tenant_read=read) from None
        except BodyTooLarge:
            detail = f"The body is longer than the {self._max_body} bytes that are read. Send fewer sites at a time."
            raise _Refused("body-too-large", detail, tenant, tenant_read=read) from None
        except _HookFailed:
            detail = "The tenant and the circulation could not be determined. Send it again in 1 second."
            raise _Refused(None, detail, tenant, tenant_read=read) from None
        return asked

    async def _decide(self, asked: Extract, scope: Scope) -> Decision:
        tenant = named = asked.tenant
        try:
            if tenant is None or self._tenant_hook is not None:  # else the reader has checked it
                tenant = self.guard.tenants.name(tenant)
            assert asked.circulation is not None  # the reader read it, or the hook gave it
            deciding = self.guard.decide(tenant, asked.circulation, self._idempotency_key(scope))
            # Frees the list of sites before the counters are waited for: the list that the application parses then
            # takes the same memory, which is still in the processor's cache.
            del asked
            return await deciding
        except CirculationError as error:
            if named is not None:  # the hook's: what the reader names is a tenant id
                self._hook_failed("tenant=", error)
                raise _Refused(None, "The tenant could not be determined. Send it again in 1 second.") from None
            raise _Refused(TENANT_UNIDENTIFIED, sentence(f"{error}{self._tenant_expected}")) from None
        except UnknownTenant:
            raise _Refused("tenant-unknown", "This tenant may not circulate here.", named) from None

    async def _run(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with its admission, and settle when it is done."""
        charges = self.guard.charges
        async with Admission(charges, decision) as admission:
            scope[SCOPE_KEY] = admission
            responder = Responder(send, self._fields(decision), charges.refund_on, admission.refund)
            await self.app(scope, receive, responder)

    async def _refuse(self, refused: _Refused, scope: Scope, body: RequestBody, send: Send) -> None:
        mode = await self.guard.tenants.mode(refused.tenant, read=refused.tenant_read)
        if mode is not OFF:
            self.guard.observers.unreadable(refused.kind or "other", refused.detail, refused.tenant)
        if mode is not Mode.ENFORCE:
            await self.app(scope, body.receive, send)
            return
        # A client that sent Expect waits for a go-ahead before it sends its body; draining would give it.
        expects = header_values(scope["headers"], b"expect")
        whole = not expects and await body.drain(_DRAIN_BYTES, _DRAIN_S)
        problem = unreadable(refused.kind, refused.detail) if refused.kind else unavailable(refused.detail)
        await respond(problem, (), scope, send, close=not whole)

    async def _hooked(
        self,
        name: str,
        hook: Callable[..., object],
        arguments: tuple[object, ...],
        check: Callable[[object], TypeGuard[T]],
    ) -> T:
        """What a hook gives; raises _HookFailed where it fails. Why is logged, and never sent to the client."""
        try:
            given: object = hook(*arguments)
            if isawaitable(given):
                given = await given
            if not check(given):
                raise TypeError(f"it gave {type(given).__name__}")
            return given
        except BaseException as error:
            if must_pass(error):
                raise
            self._hook_failed(name, error)
            raise _HookFailed from error

    def _hook_failed(self, name: str, error: BaseException) -> None:
        self._failures.log(name, where(error), "its request was not decided")

    def _fields(self, decision: Decision) -> Sequence[Field]:
        if not self._with_fields or decision.caps.mode is OFF:
            return ()
        fields = []
        if caps := ratelimit_policy(decision.caps):
            fields.append((b"ratelimit-policy", caps))
        if room := ratelimit(decision):
            fields.append((b"ratelimit", room))
        return fields

    def _idempotency_key(self, scope: Scope) -> str | None:
        if not self._idempotency_header:
            return None
        values = header_values(scope["headers"], self._idempotency_header)
        # Several keys do not name one circulation: it is charged like one without a key.
        return values[0].decode("latin-1") if len(values) == 1 else None


class _Refused(Exception):
    """Raised for a request that gets no decision; ``kind`` is None if a hook failed, which is not the client's fault.

    Without ``tenant_read`` it is not known whose request it is, or the tenant is unknown: no tenant's own mode applies.
    """

    def __init__(
        self, kind: UnreadableKind | None, detail: str, tenant: str | None = None, *, tenant_read: bool = False
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.tenant = tenant
        self.tenant_read = tenant_read


class _HookFailed(Exception):
    """Raised when a user's hook raised, or gave nonsense."""


def _a_tenant(given: object) -> TypeGuard[str | None]:
    return given is None or isinstance(given, str)


def _a_circulation(given: object) -> TypeGuard[Circulation]:
    return isinstance(given, Circulation)
