"""The reader: from a request to its tenant and circulation, or to a refusal that tells whose fault it is."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pytest

from fanout_guard.core.extract import TENANT_UNIDENTIFIED, UNREADABLE_CIRCULATION, Extract, Reader, Unreadable
from fanout_guard.core.model import Spelling
from fanout_guard.core.source import parse_source, parse_sources


def reader(tenant: str = "", document: str = "json:document_id", sites: str = "json:target_sites") -> Reader:
    """A reader of sources as configuration spells them; empty is left out."""
    return Reader(
        tenant=parse_source(tenant) if tenant else None,
        document=parse_source(document) if document else None,
        sites=parse_sources(sites) if sites else (),
    )


def sites_of(body: str | bytes, **sources: str) -> list[object]:
    """The site keys of a body."""
    extract = reader(**sources).read({}, {}, body if isinstance(body, bytes) else body.encode())
    assert extract.circulation is not None
    return list(extract.circulation.keys)


def refusal(read: Reader, body: str | bytes = b"{}", **scope: Any) -> Unreadable:
    """How a request is refused."""
    with pytest.raises(Unreadable) as caught:
        read.read(scope, {}, body if isinstance(body, bytes) else body.encode())
    return caught.value


def tenant_of(source: str, **scope: Any) -> str | None:
    """The tenant that a source outside the body names."""
    return reader(tenant=source).tenant(scope, {})


def headers(*values: bytes) -> list[tuple[bytes, bytes]]:
    """Header lines of one name, in the spelling of a careless middleware."""
    return [(b"host", b"example.org"), *((b"X-Tenant-ID", value) for value in values)]


def test_the_request_of_the_story_is_read() -> None:
    """The API must not change for the guard."""
    body = b'{"document_id": "d-1", "document_headline": "\xe2\x80\xa6", "target_sites": ["Site1", "Site2"]}'
    extract = reader("header:X-Tenant-ID").read({"headers": headers(b"acme")}, {}, body)
    assert extract.tenant == "acme"
    assert extract.circulation is not None
    assert (extract.circulation.document, extract.circulation.keys) == ("d-1", ["Site1", "Site2"])


def test_every_entry_counts() -> None:
    """An application that loops over the raw list does the work of every entry, duplicates included."""
    assert len(sites_of('{"document_id":1,"target_sites":["a","a","a"]}')) == 3
    assert sites_of('{"document_id":1,"target_sites":[]}') == []


def test_entries_of_the_wire_are_known_by_their_spelling() -> None:
    """No library's idea of a number decides which sites are one."""
    body = '{"document_id":1,"target_sites":["1",1,1.0,1e0,true,null,{"b":1.0,"a":[{"c":"\\u0041"}]},"\\u0041 "]}'
    assert sites_of(body) == [
        *("1", Spelling("1"), Spelling("1.0"), Spelling("1e0"), Spelling("true"), Spelling("null")),
        *(Spelling('{"a":[{"c":"A"}],"b":1.0}'), "A "),
    ]


@pytest.mark.parametrize(
    ("spelled", "document"),
    [
        ('"d"', "d"),
        ("7", "7"),
        ('"7"', "7"),
        ("-7", "-7"),
        ("-0", "0"),
        ('" d\\u0000"', " d\0"),
        ("9" * 300, "9" * 300),
    ],
)
def test_a_document_is_a_text_or_an_integer(spelled: str, document: str) -> None:
    """An integer is the same document as its decimal text, however the application converts it."""
    extract = reader().read({}, {}, f'{{"document_id":{spelled},"target_sites":[]}}'.encode())
    assert extract.circulation is not None
    assert extract.circulation.document == document


@pytest.mark.parametrize("spelled", ['""', "7.0", "1e2", "null", "true", "[]", "{}", '["d"]', '"\\ud800"'])
def test_any_other_document_is_refused(spelled: str) -> None:
    """A document with two names has two caps."""
    error = refusal(reader(), f'{{"document_id":{spelled},"target_sites":[]}}')
    assert error.kind == UNREADABLE_CIRCULATION
    assert "document" in error.detail


@pytest.mark.parametrize(
    "sites", ['"Site1"', f'"{"x" * 400}"', "7", "null", "true", '{"Site1":1}', '[["a"]]', '["a",[]]']
)
def test_sites_that_are_no_flat_array_are_refused(sites: str) -> None:
    """Neither a lone text nor a nested list is a number of sites."""
    error = refusal(reader(), f'{{"document_id":1,"target_sites":{sites}}}')
    assert error.kind == UNREADABLE_CIRCULATION
    assert "target_sites" in error.detail or "Site" in error.detail


@pytest.mark.parametrize("body", ["", "  ", "null", '"x"', "3", "[]", '[{"document_id":1,"target_sites":[]}]', "{}"])
def test_a_body_that_is_no_object_with_a_list_is_refused(body: str) -> None:
    """A top-level array was once counted as one circulation."""
    assert refusal(reader(), body).kind == UNREADABLE_CIRCULATION


@pytest.mark.parametrize("first", [["a"], ["a"] * 301])
def test_the_list_given_twice_is_refused_in_both_orders(first: list[str]) -> None:
    """Readers choose the first or the last of duplicates."""
    second = ["a"] * (302 - len(first))
    body = f'{{"document_id":1,"target_sites":{json.dumps(first)},"target_sites":{json.dumps(second)}}}'
    assert "twice" in refusal(reader(), body).detail


def test_duplicates_in_a_site_are_refused_and_elsewhere_ignored() -> None:
    """A site whose members are ambiguous is no certain site; what is not read may be as it is."""
    body = '{"document_id":1,"target_sites":[{"a":{"b":1,"b":2}}]}'
    assert "twice" in refusal(reader(), body).detail
    assert sites_of('{"x":{"b":1,"b":2},"y":1,"y":"\\ud800","document_id":1,"target_sites":["a"]}') == ["a"]


def test_either_alias_is_read_and_both_are_refused() -> None:
    """The application takes one of the two; which one is its secret."""
    aliases = "json:target_sites|json:targetSites"
    assert sites_of('{"document_id":1,"target_sites":["a"]}', sites=aliases) == ["a"]
    assert sites_of('{"document_id":1,"targetSites":["a"]}', sites=aliases) == ["a"]
    for second in ('["b"]', "null", "[]"):
        body = f'{{"document_id":1,"target_sites":["a"],"targetSites":{second}}}'
        assert "send one" in refusal(reader(sites=aliases), body).detail
    assert "or" in refusal(reader(sites=aliases), '{"document_id":1}').detail


def test_aliases_may_be_of_different_kinds() -> None:
    """A list in the body and one in the query are two lists."""
    both = reader(document="", sites="json:sites|query:site")
    assert both.read({"query_string": b"site=a&site=b"}, {}, b"{}").circulation is not None
    assert "send one" in refusal(both, '{"sites":[]}', query_string=b"site=a").detail


def test_a_request_without_a_body_may_have_its_list_elsewhere() -> None:
    """A GET has no body: what it lists in its query is all that there is. What else the body must tell is missed."""
    both = reader(document="query:doc", sites="json:sites|query:site")
    circulation = both.read({"query_string": b"doc=d&site=a&site=b"}, {}, b"").circulation
    assert circulation is not None
    assert list(circulation.keys) == ["a", "b"]
    assert "missing" in refusal(both, b"", query_string=b"doc=d").detail
    assert "empty" in refusal(both, b" ", query_string=b"doc=d&site=a").detail
    for needed in (reader("json:t", document="", sites="json:sites|query:site"), reader(sites="json:sites|query:site")):
        assert "empty" in refusal(needed, b"", query_string=b"site=a").detail
    assert "empty" in refusal(reader(document="", sites="json:sites|json:s"), b"").detail


def test_a_query_parameter_repeats_and_is_never_split() -> None:
    """``site=a,b`` is one site of that name to an application that reads the parameter."""
    read = reader(document="query:doc", sites="query:site")
    extract = read.read({"query_string": b"doc=d&site=a%2Cb&site=&site=c,d"}, {}, b"not looked at")
    assert extract.circulation is not None
    assert list(extract.circulation.keys) == ["a,b", "", "c,d"]
    assert "times" in refusal(read, query_string=b"doc=d&doc=e&site=a").detail
    assert "missing" in refusal(read, query_string=b"doc=d").detail
    assert "UTF-8" in refusal(read, query_string=b"doc=d&site=%ff").detail


def test_sites_that_a_middleware_put_into_the_scope_are_read() -> None:
    """Nothing but a list or tuple is taken from there, either."""
    read = reader(document="", sites="scope:state.sites")
    extract = read.read({"state": {"sites": ("a", 1)}}, {}, b"")
    assert extract.circulation is not None
    assert list(extract.circulation.keys) == ["a", Spelling("1")]
    assert "not an array" in refusal(read, state={"sites": {"a"}}).detail
    assert "missing" in refusal(read, state={}).detail


def test_a_document_may_stand_in_path_or_header() -> None:
    """``PUT /documents/{id}/sites`` names its document in the path."""
    body = b'{"target_sites":["a"]}'
    by_path = reader(document="path:id").read({}, {"id": "d-1"}, body).circulation
    by_header = reader(document="header:X-Document").read({"headers": [(b"x-document", b"d,1")]}, {}, body).circulation
    assert by_path is not None
    assert by_header is not None
    assert (by_path.document, by_header.document) == ("d-1", "d,1")
    assert (
        refusal(reader(document="header:x"), body, headers=[(b"x", b"1"), (b"X", b"1")]).kind == UNREADABLE_CIRCULATION
    )
    assert refusal(reader(document="header:x"), body, headers=[(b"x", b"")]).kind == UNREADABLE_CIRCULATION


def test_a_path_parameter_that_is_not_certain_is_refused() -> None:
    """Where routers differ in what it is, another tenant could be charged, or another document."""
    body = b'{"document_id":1,"target_sites":["a"]}'
    for read, kind in (
        (reader(document="path:id"), UNREADABLE_CIRCULATION),
        (reader(tenant="path:id"), TENANT_UNIDENTIFIED),
    ):
        with pytest.raises(Unreadable, match="'id' cannot be read") as caught:
            read.read({}, {"id": None}, body)
        assert caught.value.kind == kind


def test_without_a_document_source_there_is_no_document() -> None:
    """An empty DOCUMENT means no document cap; what the body says of one is the application's."""
    assert sites_of('{"document_id":1,"document_id":2,"target_sites":["a"]}', document="") == ["a"]


def test_a_reader_without_sites_leaves_the_body_to_a_hook() -> None:
    """The hook knows the shape; the reader must not refuse what it does not have to read."""
    read = reader("header:X-Tenant-ID", sites="")
    assert read.read({"headers": headers(b"acme")}, {}, b"<xml>") == Extract("acme", None)


@pytest.mark.parametrize(
    "value", [b"acme", b"ACME", "é".encode(), "e\u0301".encode(), "\u200ba".encode(), b"x" * 256, b"a b"]
)
def test_a_tenant_is_exactly_what_the_header_says(value: bytes) -> None:
    """No trimming, folding or normalising: two tenants of the application are never one to the guard."""
    assert tenant_of("header:x-tenant-id", headers=headers(value)) == value.decode()


@pytest.mark.parametrize(
    "lines",
    [
        *([b"me", b"victim"], [b"me", b"me"], [b"", b"me"], [b"me, victim"], [b"me,"], [b","]),
        *(
            [b" me"],
            [b"me\t"],
            [b" "],
            ["me\u00a0".encode()],
            [b"m\0e"],
            [b"me\x7f"],
            ["m\u2028e".encode()],
            [b"m\x1be"],
        ),
        *([b"\xe9"], [b"\xed\xa0\x80"], [b"x" * 257], ["é".encode() * 129]),
    ],
)
def test_a_header_that_names_no_certain_tenant_is_refused(lines: list[bytes]) -> None:
    """First or last of two, trimmed or not: a client could pose as somebody else."""
    with pytest.raises(Unreadable) as caught:
        tenant_of("header:X-Tenant-ID", headers=headers(*lines))
    assert caught.value.kind == TENANT_UNIDENTIFIED


def test_a_request_that_names_no_tenant_is_told_apart() -> None:
    """Whether it gets the default tenant or a refusal is not the reader's to decide."""
    assert tenant_of("header:X-Tenant-ID", headers=headers()) is None
    assert tenant_of("header:X-Tenant-ID", headers=headers(b"")) is None
    assert tenant_of("query:tenant", query_string=b"x=1") is None
    assert tenant_of("scope:user.id", user=None) is None
    for body in (b'{"target_sites":[]}', b'{"tenant":null,"target_sites":[]}', b'{"tenant":"","target_sites":[]}'):
        assert reader("json:tenant", document="").read({}, {}, body).tenant is None


def test_a_tenant_may_stand_in_path_query_or_scope() -> None:
    """Each source gives one exact text."""
    assert reader("path:tenant").tenant({}, {"tenant": "a"}) == "a"
    assert tenant_of("query:tenant", query_string=b"tenant=a%2Cb") == "a,b"
    assert tenant_of("scope:user.id", user={"id": 7}) == "7"
    for query in (b"tenant=a&tenant=b", b"tenant=%ff", b"tenant=a+"):
        with pytest.raises(Unreadable):
            tenant_of("query:tenant", query_string=query)
    wrong: list[object] = [True, 1.5, [], b"a"]
    for value in wrong:
        with pytest.raises(Unreadable):
            tenant_of("scope:user.id", user={"id": value})
    with pytest.raises(Unreadable):
        reader("path:tenant").tenant({}, {"tenant": "a\n"})


def test_a_tenant_that_the_scope_holds_as_a_member_of_an_enum_is_its_text() -> None:
    """It prints its own name, and the idempotency key of tenants that share counters had that."""

    class Tenant(str, Enum):  # noqa: UP042 - a StrEnum prints its text
        ACME = "acme"

    assert f"{tenant_of('scope:user.id', user={'id': Tenant.ACME})}" == "acme"


def test_an_integer_too_long_to_write_names_no_tenant() -> None:
    """Python raises where it is asked for the decimal text, and the request must not end in a 500."""
    refused = refusal(reader("scope:user.id"), user={"id": 10**5000})
    assert (refused.kind, refused.tenant_read) == (TENANT_UNIDENTIFIED, False)
    assert refused.detail == "The scope entry 'user.id' is an integer too long to write."


def test_a_scope_entry_whose_own_code_fails_is_not_told_as_an_encoding() -> None:
    """What authentication leaves for nobody may raise, and there is no encoding that a client could mend."""

    class Nobody:
        @property
        def id(self) -> str:
            raise NotImplementedError

    assert refusal(reader("scope:user.id"), user=Nobody()).detail == "The scope entry 'user.id' cannot be read."
    assert "UTF-8" in refusal(reader("header:X-Tenant-ID"), headers=headers(b"\xff")).detail


def test_a_tenant_in_the_body_is_read_with_the_rest() -> None:
    """A text or an integer, and nothing that some reader could take for another."""
    read = reader("json:auth.tenant", document="")
    assert read.tenant_in_body
    assert read.tenant({}, {}) is None
    assert read.read({}, {}, b'{"auth":{"tenant":7},"target_sites":[]}').tenant == "7"
    for value in ('["a"]', '"\\ud800"', '" a"', "1.0", "true", '{"a":1}'):
        assert refusal(read, f'{{"auth":{{"tenant":{value}}},"target_sites":[]}}').kind == TENANT_UNIDENTIFIED
    for members in ('"tenant":"a","tenant":"b"', '"tenant":"a","Tenant":"b"', '"TENANT":"b"'):
        assert refusal(read, f'{{"auth":{{{members}}},"target_sites":[]}}').kind == UNREADABLE_CIRCULATION


def test_the_tenant_is_told_before_the_circulation_and_stays_with_the_refusal() -> None:
    """Whether a refusal holds may be the tenant's own setting, so it must be known who asked."""
    read = reader("header:X-Tenant-ID")
    assert refusal(read, "{not json", headers=headers(b"a", b"b")).kind == TENANT_UNIDENTIFIED
    error = refusal(read, "{not json", headers=headers(b"acme"))
    assert (error.kind, error.tenant) == (UNREADABLE_CIRCULATION, "acme")
    assert refusal(reader("json:tenant"), '{"tenant":"acme"}').tenant == "acme"


def test_a_tenant_stays_certain_where_the_circulation_beside_it_is_ambiguous() -> None:
    """Else a tenant that names its list twice would come under another mode than its own."""
    read = reader("json:auth.tenant")
    for members in ('"target_sites":[],"target_sites":[]', '"Target_Sites":[]', '"document_id":1,"document_id":1'):
        error = refusal(read, f'{{"auth":{{"tenant":"acme"}},{members}}}')
        assert (error.kind, error.tenant, error.tenant_read) == (UNREADABLE_CIRCULATION, "acme", True)
    for members in ('"auth":{}', '"Auth":{}', '"__proto__":{}'):
        error = refusal(read, f'{{"auth":{{"tenant":"acme"}},{members},"document_id":1,"target_sites":[]}}')
        assert (error.kind, error.tenant, error.tenant_read) == (UNREADABLE_CIRCULATION, None, False)


def test_a_refusal_quotes_nothing_but_configured_names() -> None:
    """Problem documents and logs must not carry what another client may have put in a body."""
    bodies = [
        '{"document_id":1,"target_sites":"secret"}',
        '{"document_id":"\\ud800secret"}',
        '{"target_sites":{"secret":1}}',
    ]
    bodies += [
        '{"document_id":1,"target_sites":[["secret"]]}',
        '{"secret',
        '{"document_id":1,"Target_Sites":["secret"]}',
    ]
    for body in bodies:
        assert "secret" not in refusal(reader(), body).detail
        assert refusal(reader(), body).detail.endswith(".")
