"""Strict JSON: which bytes are read at all, and what the tree shows."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fanout_guard.core.model import Spelling
from fanout_guard.core.strict_json import MAX_DEPTH, Members, NotStrictJson, parse


def test_numbers_keep_their_spelling_and_objects_their_pairs() -> None:
    """What a library makes of a number or of a repeated name is what readers disagree about."""
    tree = parse(b' {"a":[1,1.0,-0,1e2,"1",null,true],"a":{}}\r\n')
    numbers = [Spelling(text) for text in ("1", "1.0", "-0", "1e2")]
    assert tree == Members((("a", [*numbers, "1", None, True]), ("a", Members())))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \r\n\t ", "empty"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32-be"), "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "NaN or Infinity"),
        (b'{"a":1e999}', "range of a double"),
        (b'{"a":-1E+400}', "range of a double"),
        (b'{"a":' + b"9" * 400 + b"}", "range of a double"),
        (b"{not json", "not JSON at character 1"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_a_reason(body: bytes, said: str) -> None:
    """A client must be able to tell what to repair."""
    with pytest.raises(NotStrictJson, match=said):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"[1,]", b'{"a":1,}', b"[,1]", b"{'a':1}", b"{a:1}", b"[1 2]", b'["a" "b"]', b"[1]//", b"/**/[1]", b"[1]#"),
        *(b"[01]", b"[1.]", b"[.1]", b"[+1]", b"[-]", b"[1e]", b"[0x1]", b"[1_0]", "[١]".encode(), b"[--1]", b"[1.e1]"),
        *(
            b'["\t"]',
            b'["\0"]',
            b'["\n"]',
            b'["\\x41"]',
            b'["\\u12"]',
            b'["\\u 123"]',
            b'["\\u+123"]',
            b'["\\\'"]',
            b'["a]',
        ),
        *(
            b"[1]\0",
            b"[1][2]",
            b"[1]\n[2]",
            b"[1]x",
            b"[1],",
            b"\0[1]",
            b"\x0b[1]",
            b"[1]\x0c",
            b"[1]\xc2\xa0",
            b"\x1e[1]",
        ),
        *(
            b"[True]",
            b"[nul]",
            b"[undefined]",
            b"[",
            b"]",
            b"[}",
            b'{"a"}',
            b'{"a":}',
            b"{1:2}",
            b'"a',
            b"nan",
            b'{"a":1 "b":2}',
        ),
    ],
)
def test_what_a_lenient_reader_would_take_is_refused(body: bytes) -> None:
    """Comments, other quotes, trailing commas, second documents: some application reads on where the guard stopped."""
    with pytest.raises(NotStrictJson):
        parse(body)


@pytest.mark.parametrize("whole", [b'{"a":"%s"}', b'[[["%s"]]]', b"%s", b'"%s'])
def test_a_refusal_quotes_nothing_of_the_body(whole: bytes) -> None:
    """Errors reach logs and other tenants' eyes."""
    with pytest.raises(NotStrictJson) as caught:
        parse(whole.replace(b"%s", b"secret\x01"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("times", [2000, 20_000, 100_000])
def test_deep_nesting_is_refused_at_once(opened: str, times: int) -> None:
    """The interpreter's own limit differs by version, and its RecursionError was a 500."""
    started = time.process_time()
    with pytest.raises(NotStrictJson, match="nested"):
        parse(b'{"ignored":' + opened.encode() * times)
    assert time.process_time() - started < 5


def test_the_bound_of_nesting_is_exact() -> None:
    """Strings with brackets in them and wide bodies are not deep ones."""
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse(deepest) == json.loads(deepest)
    with pytest.raises(NotStrictJson, match="nested"):
        parse(b"[" + deepest + b"]")
    assert parse(b"[" + b"[]," * 5000 + b"{}]") == [[]] * 5000 + [Members()]
    assert parse(b'["' + b'[{\\"[\\\\' * 5000 + b'"]') == ['[{"[\\' * 5000]


def test_the_interpreters_own_limit_is_a_refusal_too() -> None:
    """An application deep in its own calls leaves the scanner less room."""
    limit = sys.getrecursionlimit()
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH

    def deep(levels: int) -> object:
        try:
            return parse(body) if levels == 0 else deep(levels - 1)
        except NotStrictJson as refused:
            return str(refused)

    with ThreadPoolExecutor(1) as thread:  # which is not in the calls of whoever runs the tests
        found = [thread.submit(deep, levels).result() for levels in range(limit - 200, limit - 40, 10)]
    whole, refused = parse(body), "The body is not JSON."
    assert found[0] == whole
    assert all(each in (whole, refused) for each in found)
    if sys.version_info < (3, 12):  # from then on what is written in C has a limit of its own
        assert found[-1] == refused


@pytest.mark.parametrize(
    "body", [b'{"a":"' + b'\\"' * 400_000, b"[" * 200 + b'"' + b'\\"' * 400_000, b"[" + b"9" * 800_000, b"{" * 800_000]
)
def test_hostile_bodies_take_linear_time(body: bytes) -> None:
    """A quadratic scan of one body of 1 MiB would stop a worker for minutes."""
    started = time.process_time()
    with pytest.raises(NotStrictJson):
        parse(body)
    assert time.process_time() - started < 5
