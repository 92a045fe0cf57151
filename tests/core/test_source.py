"""Where a request tells something: the notation, and the reading of headers, queries and scopes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from fanout_guard.core.source import (
    Source,
    header_values,
    parse_source,
    parse_sources,
    query_values,
    scope_value,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("header:X-Tenant-ID", Source("header", ("X-Tenant-ID",))),
        ("path:tenant", Source("path", ("tenant",))),
        ("query:site", Source("query", ("site",))),
        ("json:a.b", Source("json", ("a", "b"))),
        ("scope:user.tenant_id", Source("scope", ("user", "tenant_id"))),
        ("query:a.b", Source("query", ("a.b",))),
    ],
)
def test_a_source_is_a_kind_and_a_name(text: str, source: Source) -> None:
    """Only JSON members and scope entries have parts; a dot in another name is a dot."""
    assert parse_source(text) == source
    assert source.name == text.partition(":")[2]


@pytest.mark.parametrize(
    "text",
    ["", "X-Tenant-ID", "cookie:a", "header:", "json:a..b", "json:.a", "query: a", "json:\0", "json:\udcff"],
)
def test_what_is_no_source_is_refused_with_a_reason(text: str) -> None:
    """A source that can never be found would leave every request unguarded or refused."""
    with pytest.raises(ValueError, match=r"source|names nothing"):
        parse_source(text)


def test_aliases_of_the_list_are_several_sources() -> None:
    """An API that takes two names for its list is read under both."""
    assert parse_sources("json:target_sites | json:targetSites") == (
        Source("json", ("target_sites",)),
        Source("json", ("targetSites",)),
    )


@pytest.mark.parametrize("text", ["header:X-Sites", "path:sites", "json:a|header:b", "json:a|json:a", "json:a|", ""])
def test_what_cannot_give_an_array_is_no_source_of_sites(text: str) -> None:
    """A header or a path segment is one value: counting it as one site would be an undercount."""
    with pytest.raises(ValueError):
        parse_sources(text)


def test_header_names_are_compared_in_any_case() -> None:
    """A scope that another middleware has touched may carry names as the client spelled them."""
    headers = [(b"X-Tenant-ID", b"a"), (b"x-other", b"b"), (b"x-tenant-id", b"c")]
    assert header_values(headers, b"x-tenant-id") == [b"a", b"c"]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (b"", []),
        (b"other=1", []),
        (b"site=a&site=b", ["a", "b"]),
        (b"s%69te=a&&site=%C3%A9+%2B", ["a", "é +"]),
        (b"site", [""]),
        (b"site=&site==", ["", "="]),
        (b"SITE=a", []),
        (b"site=a,b;c", ["a,b;c"]),
        (b"other=%zz&site=a", ["a"]),
    ],
)
def test_query_parameters_are_found_as_applications_find_them(query: bytes, values: list[str]) -> None:
    """A parameter that the application sees and the guard does not would go uncounted."""
    assert query_values(query, "site") == values


@pytest.mark.parametrize("query", [b"site=a#b", b"site=a#&site=b", b"x=#&site=a", b"#site=a", b"a#b"])
def test_a_query_with_a_fragment_is_refused(query: bytes) -> None:
    """Servers pass it on as it came, and BlackSheep cuts it off there: it once acted for another tenant."""
    with pytest.raises(ValueError):
        query_values(query, "site")


@pytest.mark.parametrize("value", [b"%", b"%z1", b"%ff", b"%ed%a0%80", b"\xc3\xa9"])
def test_a_query_value_that_is_not_percent_encoded_utf8_is_refused(value: bytes) -> None:
    """Readers repair such values each in its own way, and so take different sites for one."""
    with pytest.raises(ValueError):
        query_values(b"site=" + value, "site")


class _User:
    tenant_id = "acme"

    @property
    def broken(self) -> str:
        raise NotImplementedError


class _Session(dict[str, str]):
    def get(self, name: str, default: object = None) -> str:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("user.tenant_id", "acme"),
        ("state.tenant", 7),
        ("state.uuid", "12345678-1234-5678-1234-567812345678"),
        ("state.missing", None),
        ("user.missing.more", None),
        ("nothing", None),
    ],
)
def test_a_scope_is_walked_by_members_and_attributes(path: str, value: object) -> None:
    """Authentication leaves dictionaries or objects there, and ids of several types."""
    scope: dict[str, Any] = {
        "user": _User(),
        "state": {"tenant": 7, "uuid": UUID(int=0x12345678123456781234567812345678)},
    }
    assert scope_value(scope, tuple(path.split("."))) == value


def test_an_attribute_that_raises_is_an_unreadable_value() -> None:
    """An unauthenticated user raises NotImplementedError for its identity; that must not become a 500."""
    with pytest.raises(ValueError):
        scope_value({"user": _User()}, ("user", "broken"))


def test_a_mapping_that_raises_is_an_unreadable_value() -> None:
    """A session that is read before it was loaded raises; that must not become a 500 either, least of all in shadow."""
    with pytest.raises(ValueError):
        scope_value({"session": _Session()}, ("session", "tenant"))
