"""Guarded routes: every spelling that a router sends to the handler, and nothing that costs a request."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import quote, unquote

import litestar
import pytest
from fastapi import FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from fanout_guard.asgi.route import Routes, root_path_of
from fanout_guard.core.routes import PathParams
from fanout_guard.types import ASGIApp, Receive, Scope, Send
from tests.asgi import driving
from tests.asgi.driving import scope_of


def match(routes: str, path: str, *, method: str = "POST", root_path: str = "") -> PathParams | None:
    """The parameters with which a path is guarded."""
    return Routes(routes).match(scope_of(path, method=method, root_path=root_path))


class Probe:
    """Stands where the guard stands, and notes whether a request that reached the handler would be guarded."""

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self.app = app
        self.routes = routes
        self.guarded: PathParams | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.guarded = self.routes.match(scope)
        await self.app(scope, receive, send)


class Handled:
    """A handler that notes with which parameters it was reached."""

    def __init__(self) -> None:
        self.params: dict[str, Any] | None = None

    async def handle(self, request: Request) -> PlainTextResponse:
        self.params = dict(request.path_params)
        return PlainTextResponse("done")


def drive(app: ASGIApp, scope: dict[str, Any]) -> int:
    """The status of one request."""
    return asyncio.run(driving.drive(app, scope, driving.chunked(b"{}"))).status


PATH = "/circulate-document"


@pytest.mark.parametrize(
    "path", [PATH, PATH + "/", PATH + "\n", PATH + "/\n", PATH + "//", "/" + PATH, unquote("/%63irculate%2Ddocument")]
)
def test_the_spellings_of_a_path_are_guarded(path: str) -> None:
    """Decoded, with slashes at the end or repeated, with the newline that a ``$`` lets through."""
    assert match(f"POST {PATH}", path) == {}
    assert match(f"POST {PATH}/", path) == {}
    assert match("POST /%63irculate-document", path) == {}


@pytest.mark.parametrize("path", [PATH.upper(), "/Circulate-Document/", "/CIRCULATE-document\n", PATH[1:].upper()])
def test_a_path_in_any_case_is_guarded(path: str) -> None:
    """Some routers do not look at case: another spelling once reached the handler uncounted."""
    for routes in (f"POST {PATH}", "POST /Circulate-Document"):
        assert match(routes, path) == {}
    assert match("POST /t/{tenant}/Circulate-Document", f"/T/Acme/{path.lstrip('/')}") == {"tenant": "Acme"}


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize(
    "path",
    [PATH[1:] + ";", PATH[1:] + ";x", "http://example.org" + PATH + ";x", "*" + PATH[1:], PATH + "#", PATH + "/#x"],
)
def test_a_target_that_some_router_cuts_down_to_the_path_is_guarded(path: str, root_path: str) -> None:
    """Quart's cuts what follows a semicolon, Sanic's a fragment and the first character, whatever it is."""
    assert match(f"POST {PATH}", path, root_path=root_path) == {}
    assert match("POST /t/{tenant}/c", "/t/a#b;/c") == {"tenant": "a#b;"}


@pytest.mark.parametrize(
    "path",
    [PATH[1:], PATH[1:] + "/", "http://example.org" + PATH, "http://example.org:80/" + PATH + "/", "http:" + PATH[1:]],
)
@pytest.mark.parametrize("root_path", ["", "/api"])
def test_a_target_that_does_not_begin_with_a_slash_is_guarded(path: str, root_path: str) -> None:
    """Servers pass it on as it came (h11's do), and some routers serve it: it once went round the guard."""
    assert match(f"POST {PATH}", path, root_path=root_path) == {}
    assert match("POST /t/{tenant}/c", "t/a?b#c/c") == {"tenant": "a?b#c"}


def test_what_litestar_serves_without_a_slash_is_guarded() -> None:
    """The property once more, with a router that puts the slash there itself."""
    reached: list[str] = []

    @litestar.post(PATH)
    async def circulate() -> None:
        reached.append("circulate")

    app = Probe(cast(ASGIApp, Litestar([circulate])), Routes(f"POST {PATH}"))
    drive(app, scope_of(PATH[1:]))
    assert (reached, app.guarded) == (["circulate"], {})


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/circulate", PATH + "s", PATH + "/x", "/x" + PATH, "/." + PATH, "*", PATH + "s#x", "*s" + PATH),
        *("x" + PATH, PATH[2:], "http://[/" + PATH[1:], "//example.org" + PATH),
        *("/%63irculate-document", PATH + "\n\n", PATH + "\n/x", PATH + " ", PATH + "\0", PATH + "?x=1", PATH + ";x=1"),
    ],
)
def test_other_paths_are_not_guarded(path: str) -> None:
    """Their requests are not the guard's to refuse."""
    assert match(f"POST {PATH}", path) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", ""])
def test_other_methods_are_not_guarded(method: str) -> None:
    """Preflights once used up a tenant's quota."""
    assert match(f"POST {PATH}", PATH, method=method) is None


@pytest.mark.parametrize("method", ["HEAD", "head"])
def test_head_is_guarded_where_get_is(method: str) -> None:
    """Routers give both to one handler, which circulates all the same."""
    assert "HEAD" in (Route(PATH, lambda _: PlainTextResponse()).methods or ())
    assert match(f"POST {PATH}, GET {PATH}", PATH, method=method) == {}
    assert match(f"GET {PATH}", PATH, method="OPTIONS") is None


def test_a_method_in_lower_case_is_guarded() -> None:
    """Some servers pass on what came, and some frameworks raise it to upper case themselves."""
    assert match(f"POST {PATH}", PATH, method="post") == {}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/t/acme/circulate", {"tenant": "acme"}),
        ("/t/a b\n/circulate/", {"tenant": "a b\n"}),
        ("/t/a%2Fb/circulate\n", {"tenant": "a%2Fb"}),
        ("//t/a//circulate//", {"tenant": "a"}),
        ("/t//circulate", {"tenant": ""}),  # Falcon's names match nothing, too: it once went round the guard
        ("/t//circulate/", {"tenant": ""}),
        ("//t//circulate", {"tenant": ""}),  # and it strips what is before the first segment
        ("/t///circulate", None),
        ("/t/circulate", None),
        ("/t/a/b/circulate", None),
    ],
)
def test_a_name_in_braces_is_one_segment(path: str, params: dict[str, str] | None) -> None:
    """The parameter is what the router gives the handler."""
    assert match("POST /t/{tenant}/circulate", path) == params


@pytest.mark.parametrize(
    ("raw_path", "root_path", "params"),
    [
        (b"/t/a%2Fb/circulate", "", {"tenant": "a/b"}),
        (b"/t/%2f/circulate/", "", {"tenant": "/"}),
        (b"/t/a%2Fb%252F%C3%A9/circulate", "", {"tenant": "a/b%2Fé"}),
        (b"/api/t/a%2Fb/circulate", "/api", {"tenant": "a/b"}),
        (b"http://example.org/t/a%2Fb/circulate", "", {"tenant": "a/b"}),
        (b"/t/a%2Fb/circulate?x=1", "", {"tenant": "a/b"}),
        (b"/t/a%2Fb/circulate#x", "", {"tenant": "a/b"}),
        (b"/t%2Fa/circulate", "", {"tenant": "a"}),
        (b"/t/a%2Fb%2Fcirculate", "", None),
        (b"/t/a/b/circulate", "", None),
    ],
)
def test_an_encoded_slash_inside_a_parameter_is_guarded(
    raw_path: bytes, root_path: str, params: dict[str, str] | None
) -> None:
    """BlackSheep and Sanic go by the path as it was sent, where it is one segment: it once went round the guard."""
    scope = scope_of(unquote(raw_path.partition(b"?")[0]), root_path=root_path) | {"raw_path": raw_path}
    routes = Routes("POST /circulate, POST /t/{tenant}/circulate")
    assert routes.match(scope) == params
    # A server may leave it out; what the decoded path shows counts all the same.
    assert routes.match(scope | {"raw_path": None}) in (None, {"tenant": "a"})


@pytest.mark.parametrize(
    ("raw_path", "params"),
    [
        (b"/t/a%23b/circulate#x", {"tenant": "a#b"}),
        (b"http://example.org/t/a%23b/circulate", {"tenant": "a#b"}),
        (b"http://example.org/t/a%3Fb/circulate", {"tenant": "a?b"}),
        (b"/circulate#x", {}),
        (b"/circulate%23x", None),
        (b"/circulate%23", None),
        (b"/t/a/circulate%23x", None),
    ],
)
def test_a_target_is_cut_as_it_was_sent(raw_path: bytes, params: dict[str, str] | None) -> None:
    """Sanic cuts it before it decodes; what was sent encoded is the path's own, and once went round the guard."""
    scope = scope_of(unquote(raw_path)) | {"raw_path": raw_path}
    assert Routes("POST /circulate, POST /t/{tenant}/circulate").match(scope) == params


@pytest.mark.parametrize(
    ("raw_path", "value"),
    [
        (b"documents/d;1", None),
        (b"documents/d%3B1", None),
        (b"http://example.org/documents/d;1", None),
        (b"documents/d%3F1", None),
        (b"/documents/d#1", None),
        (b"*documents/d#1", "d"),
        (b"/documents/d%2F", None),
        (b"documents/d", "d"),
        (b"http://example.org/documents/d", "d"),
        (b"/documents/d%231", "d#1"),
        (b"/documents/d;1", "d;1"),
        (b"/documents/d%2Fe", "d/e"),
    ],
)
def test_a_parameter_that_routers_read_differently_is_not_certain(raw_path: bytes, value: str | None) -> None:
    """Quart's cuts what follows a semicolon: ``documents/d;1`` was another document to the guard, and ``d`` to it."""
    scope = scope_of(unquote(raw_path)) | {"raw_path": raw_path}
    assert Routes("POST /documents/{id}").match(scope) == {"id": value}


@pytest.mark.parametrize(
    ("path", "value"),
    [("/documents/%64", None), ("/documents/d%2Fe", None), ("/documents/é%C3%A9", None), ("/documents/5%", "5%")],
)
def test_a_parameter_is_not_certain_where_it_may_be_decoded_once_more(path: str, value: str | None) -> None:
    """BlackSheep does so where a server gives no raw path (a2wsgi): ``%64`` was another document to the guard."""
    routes = Routes("POST /documents/{id}")
    for raw_path in ({}, {"raw_path": None}):
        scope = scope_of(path)
        del scope["raw_path"]
        assert routes.match(scope | raw_path) == {"id": value}
    assert routes.match(scope_of(path) | {"raw_path": quote(path).encode()}) == {"id": path.removeprefix("/documents/")}


def test_a_parameter_at_the_end_keeps_its_newline() -> None:
    """The router's own pattern is greedy: to the application these are two documents."""
    assert match("PUT /documents/{id}", "/documents/d\n", method="PUT") == {"id": "d\n"}
    assert match("PUT /documents/{id}", "/documents/d/\n", method="PUT") == {"id": "d"}


@pytest.mark.parametrize(
    ("routes", "path", "root_path", "guarded"),
    [
        ("POST /circulate", "/api/circulate", "/api", True),
        ("POST /circulate", "/circulate", "/api", True),
        ("POST /circulate", "/apis/circulate", "/api", False),
        ("POST /circulate", "/app/circulate", "/api", False),
        ("POST /v1/circulate", "/v1/circulate", "/v", True),
        ("POST /1/circulate", "/v1/circulate", "/v", True),
        ("POST /circulate", "/x/api/circulate", "/api", True),
        ("POST /circulate", "/api//v1/x/api/v1/circulate", "/api/v1", True),
        ("POST /circulate", "/apicirculate", "/api", True),
        ("POST /circulate", "/x/api/y/api/circulate", "/api", False),
        ("POST /api/circulate", "/api/circulate", "/api", True),
        ("POST /", "/api", "/api", True),
        ("POST /circulate", "/api//circulate", "/api", True),
        ("POST /circulate", "/api//circulate", "/api/", True),
    ],
)
def test_what_follows_a_root_path_is_guarded_and_so_is_the_whole(
    routes: str, path: str, root_path: str, guarded: bool
) -> None:
    """Stripping ``/v`` from ``/v1`` skipped a policy; so did not stripping at all, or only where a segment ends."""
    assert (match(routes, path, root_path=root_path) is not None) is guarded


def test_the_parameters_are_those_below_the_root_path() -> None:
    """Where a pattern fits with and without the prefix, the router goes by the path without it."""
    assert match("POST /{a}/c, POST /{b}/{a}/c", "/x/t/c", root_path="/x") == {"a": "t"}


def test_a_parameter_that_a_root_path_may_be_part_of_is_not_certain() -> None:
    """Litestar and Quart cut it off inside a segment, too: to the guard, tenant ``acme`` once was one more tenant."""
    assert match("POST /{tenant}/c", "/apiacme/c", root_path="/api") == {"tenant": None}
    assert match("POST /{tenant}/c", "/api/apiacme/c", root_path="/api") == {"tenant": "apiacme"}
    assert match("POST /t/{tenant}/c", "/t/apiacme/c", root_path="/api") == {"tenant": "apiacme"}
    assert match("POST /{tenant}/c", "/acme/c", root_path="/api") == {"tenant": "acme"}


def test_what_looks_like_another_routers_pattern_can_be_meant() -> None:
    """As it is, it would match nothing that the application serves; percent-encoded, it is the text itself."""
    assert match("POST /t/%2A/%3Aa/%3Cb%3E", "/t/*/:a/<b>") == {}
    assert match("POST /documents:circulate", "/documents:circulate") == {}


PIECES = (
    "circulate-document",
    "t",
    "acme",
    "api",
    "v",
    "v1",
    "/",
    "/",
    "//",
    "\n",
    ".",
    "..",
    "%63",
    "C",
    " ",
    "\0",
    "é",
)
ENDS = ("", "", "", "/", "\n", "/\n", "\n\n", "//", "\n/", " ", "/.", "\0")


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Paths near the guarded ones, and some that are not."""
    if draw(st.integers(0, 7)) == 0:
        return "/" + "".join(draw(st.lists(st.sampled_from(PIECES), max_size=8)))
    common = (
        ("", "/api") if draw(st.booleans()) else ("/v", "/v1", "/t", "/api/api", "/api/", "/v/api", "//api", "/v1/api")
    )
    prefix = draw(st.sampled_from(common))
    odd = ("/t/a\n", "/t/ ", "/t/", "/t/%2F", "/t/api", "/t/a/b", "/t/\0")
    tenant = draw(st.sampled_from(("", "/t/acme") if draw(st.booleans()) else odd))
    return prefix + tenant + "/circulate-document" + draw(st.sampled_from(ENDS))


@settings(max_examples=300)
@given(paths(), st.sampled_from(["", "/api", "/v", "/api/", "/t", "/t/acme"]))
@example("/circulate-document\n", "")
@example("/api/circulate-document", "/api")
@example("/v1/circulate-document", "/v")
@example("/t/acme\n/circulate-document\n", "")
@example("/api//circulate-document\n", "")
@example("/t/api/circulate-document", "/api")
def test_whatever_reaches_a_handler_is_guarded(path: str, root_path: str) -> None:
    """The one property that counts, against the real routers: no spelling gets round the guard."""
    for framework in (Starlette, FastAPI):
        for prefix in ("", "/api"):
            handled = Handled()
            inner = _application(framework, handled)
            routes = Routes(f"POST {prefix}/circulate-document, POST {prefix}/t/{{tenant}}/circulate-document")
            app = Probe(Starlette(routes=[Mount(prefix, app=inner)]) if prefix else inner, routes)
            drive(app, scope_of(path, root_path=root_path))
            if handled.params is not None:
                assert app.guarded is not None
                # With a newline at the end, Starlette's mounts give their router the whole path, root path and all.
                assert app.guarded == handled.params or (prefix and path.endswith("\n"))


@settings(max_examples=300)
@given(paths())
@example("/api/circulate-document\n")
@example("/v1/api//circulate-document\n")
def test_whatever_reaches_a_mounted_handler_is_guarded_inside_the_mount(path: str) -> None:
    """A guard in the mounted application sees a root path that has grown."""
    handled = Handled()
    inner = Probe(
        _application(Starlette, handled), Routes("POST /circulate-document, POST /t/{tenant}/circulate-document")
    )
    drive(Starlette(routes=[Mount("/{version}/api", app=inner), Mount("/api", app=inner)]), scope_of(path))
    if handled.params is not None:
        assert inner.guarded is not None
        assert inner.guarded.items() <= handled.params.items()


@pytest.mark.parametrize("root_path", ["", "/r", "/r/s"])
def test_a_mounted_guard_knows_the_whole_path_below_any_root_path(root_path: str) -> None:
    """The server's root path stands before the mount's: behind a proxy, such a guard once guarded nothing."""
    whole, below = "POST /api/circulate-document, POST /api/t/{tenant}/circulate-document", "POST /circulate-document"
    for routes, path in ((whole, PATH), (below, PATH), (whole, "/t/acme" + PATH)):
        handled = Handled()
        inner = Probe(_application(FastAPI, handled), Routes(routes))
        app = Starlette(routes=[Mount("/api", app=inner)])
        drive(app, scope_of(f"{root_path}/api{path}", root_path=root_path))
        assert handled.params is not None
        assert inner.guarded == ({"tenant": "acme"} if "acme" in path else {})


def test_a_root_path_that_the_application_sets_itself_is_honoured() -> None:
    """FastAPI puts its ``root_path`` into the scope after a guard outside has looked at it."""
    handled = Handled()
    api = FastAPI()
    api.root_path = "/api"
    api.add_route("/circulate-document", handled.handle, methods=["POST"])
    app = Probe(api, Routes("POST /circulate-document", root_path=root_path_of(api)))
    for path, root_path in (
        ("/api/circulate-document", ""),
        ("/circulate-document", ""),
        ("/api/circulate-document", "/x"),
    ):
        assert drive(app, scope_of(path, root_path=root_path)) == 200
        assert app.guarded == {}
    assert root_path_of(Probe(Probe(api, app.routes), app.routes)) == "/api"
    assert root_path_of(Starlette()) == ""


def test_the_patterns_of_the_installed_router_are_those_that_were_read() -> None:
    """A new Starlette that lets more spellings through must fail here first."""
    assert Route(PATH, Handled().handle).path_regex.pattern == r"^/circulate\-document$"
    assert Route("/t/{tenant}", Handled().handle).path_regex.pattern == "^/t/(?P<tenant>[^/]+)$"


def _application(framework: type[Starlette], handled: Handled) -> Starlette:
    app = framework()
    app.add_route("/circulate-document", handled.handle, methods=["POST"])
    app.add_route("/t/{tenant}/circulate-document", handled.handle, methods=["POST"])
    return app
