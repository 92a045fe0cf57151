"""Routes as configuration spells them."""

from __future__ import annotations

import pytest

from fanout_guard.core.routes import Segment, parse_routes


@pytest.mark.parametrize(
    "text",
    [
        *("", "POST", "/x", "POST x", "post /x", "POST /x,", "HEAD /x", "OPTIONS /x", "GET|POST /x", "POST /{a}/{a}"),
        *("POST /{a:path}", "POST /a{b}", "POST /{}", "POST /{1}", "POST /a?b", "POST /a#b", "POST /a b", "POST /a\0"),
        *("POST /a/*", "POST /t/*/c", "POST /t/:tenant/c", "POST /t/<tenant>/c", "POST /t/<str:tenant>/c"),
        "POST /caf\udce9",
    ],
)
def test_what_is_no_route_is_refused(text: str) -> None:
    """A route that can never match leaves the handler unguarded."""
    with pytest.raises(ValueError):
        parse_routes(text)


def test_routes_tell_their_parameters() -> None:
    """Configuration checks that a ``path:`` source has a segment to come from."""
    first, second = parse_routes("POST /t/{tenant}/c,  GET   /a%20b/")
    assert (first.method, first.params) == ("POST", ("tenant",))
    assert second.segments == (Segment("a b", is_param=False), Segment("", is_param=False))
