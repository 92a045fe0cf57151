"""Plain bodies are read on a shorter way, which must never see anything that the scanner does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from sys import getsizeof
from typing import cast

import pytest

from fanout_guard.core import strict_json
from fanout_guard.core.circulation import Circulation
from fanout_guard.core.model import Spelling
from fanout_guard.core.strict_json import _SAMPLED, Members, Texts, _Arrays, parse, read_plain, scan
from tests.fuzz.check import is_plain


@pytest.mark.parametrize(
    "body",
    [
        b'{"document_id": "d-1", "document_headline": "\xe2\x80\xa6", "target_sites": ["Site1", "Site2"]}',
        b'\r\n\t {"document_id":7,"urgent":true,"embargo":null,"target_sites":[ ]\n,"tags" : ["a"]} ',
        b'{"document_id":"\\u00e9\\"\\\\\\/\\ud83d\\ude00","target_sites":["https:\\/\\/site-1.example"]}',
        b"{}",
    ],
)
def test_what_clients_send_is_plain(body: bytes) -> None:
    """The shorter way is of no use where nobody takes it."""
    assert is_plain(body)


@pytest.mark.parametrize("name", ["a", "", "\\u0061", "\\u00e9", "é"])
def test_a_name_given_twice_is_seen_twice(name: str) -> None:
    """A reader that keeps the last of two lists would count the wrong one."""
    plain = json.loads(f'"{name}"')
    body = f'{{"{name}":["x","y"],"b":1,"{plain}":["z"],"{name}":"x"}}'.encode()
    assert is_plain(body)
    assert len(parse(body)) == 4  # type: ignore[arg-type]  # an object's members


@pytest.mark.parametrize(
    "value", ["-0", "0", "1.0", "1e2", "-7", "1E400", "9" * 16, "9" * 400, "0.1", "-1.5e-3", '["a",1]', "[[]]", "{}"]
)
def test_numbers_and_trees_whose_spelling_would_be_lost_are_left_to_the_scanner(value: str) -> None:
    """A number is known by its spelling, which msgspec does not keep."""
    assert read_plain(f'{{"a":{value}}}'.encode()) is None


def test_integers_are_read_by_their_spelling() -> None:
    """An integer's decimal text is its spelling, as long as nothing rounds."""
    spelled = [str(10**power + add) for power in range(24) for add in (-1, 0, 1)]
    plain = [text for text in spelled if is_plain(f'{{"a":{text}}}'.encode())]
    assert plain == [text for text in spelled if 0 < int(text) < 10**15]
    assert parse(b'{"a":123}') == Members([("a", Spelling("123"))])
    assert all(not is_plain(f'{{"a":{text}}}'.encode()) for text in ("01", "+1", "1.", "1_0", "0x1", "--1", "1 0", "١"))


def _escapes() -> Iterator[bytes]:
    for code in range(0x10000):
        yield b"\\u%04x" % code
    for code in range(256):
        yield b"\\" + bytes([code])
        for place in range(4):
            digits = bytearray(b"0041")
            digits[place] = code
            yield b"\\u" + bytes(digits)
    for high in (0xD7FF, 0xD800, 0xDBFF, 0xDC00, 0xDFFF, 0xE000):
        for low in (0xD7FF, 0xD800, 0xDBFF, 0xDC00, 0xDFFF, 0xE000, 0x41):
            yield b"\\u%04X\\u%04X" % (high, low)
        yield b"\\u%04X" % high + b"x" * 12
        yield b"\\u%04X\\n" % high


def test_every_escape_is_read_alike() -> None:
    """An escape that two readers read differently makes two sites, or two names, of one."""
    for escape in _escapes():
        as_value = is_plain(b'{"a":"' + escape + b'"}')
        assert is_plain(b'{"' + escape + b'":"a"}') is as_value
        assert is_plain(b'{"a":["x","' + escape + b'\xc3\xa9"]}') is as_value


def test_every_byte_is_read_alike_anywhere() -> None:
    """Control characters, other white space, cut and overlong UTF-8, a byte order mark: one judge for all."""
    body = '{"a":"bé…😀c" , "d":["e","é\\n"],"f":12,"g":true}'.encode()
    parts = [bytes([code]) for code in range(256)]
    parts += [b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"\xc2\x85", b"\0\0"]
    plain = 0
    for at in range(len(body) + 1):
        for part in parts:
            plain += is_plain(body[:at] + part + body[at:])
            plain += is_plain(body[:at] + part + body[at + 1 :])
    assert 0 < plain < 2 * len(parts) * len(body)


def test_an_array_seen_before_is_read_alike_wherever_its_bytes_stand() -> None:
    """A list that is known by its bytes must be a list there, and the only one: a string may hold the same bytes."""
    arrays = ["[]", "[ ]", "[\n]", '[""]', '["a"]', '["a","b" , "c\\u00e9"]', '["é"]']
    bodies = [f'{{"a":{array}}}' for array in arrays]
    for array in arrays:
        bodies += [
            f'{{"b":1, "a":{array} ,"c":"d"}}',
            f'{{"b":"{array}"}}',
            f'{{"b":"x{array}y"}}',
            f'{{"b{array}":"y"}}',
            f'{{"b":{array}',
            f'{{"b":\\{array}}}',
            f'{{"b":1{array}}}',
            f'{{"b":"\\{array}"}}',
            f"{{{array}:1}}",
            array,
            *(f'{{"b":{array},"a":{other}}}' for other in arrays),
            *(f'{{"b":"{array}","a":{other}}}' for other in arrays),
            *(f'{{"a":{other},"b":"[{array}"}}' for other in arrays),
            *(f'{{"a":{other},"b":"]"}}' for other in arrays),
            *(f'{{"a":{other},"b":"["}}' for other in arrays),
            f'{{"a":[{array}]}}',
            f'{{"a":["x",{array}]}}',
            f'{{"a":{array}{array}}}',
        ]
    for body in bodies * 3:
        for hostile in (body.encode(), body.encode("latin-1"), body.replace("a", "\0").encode()):
            is_plain(hostile)
    assert is_plain(b'{"a":["a"],"b":"["}')


def test_an_array_seen_before_makes_the_same_circulation() -> None:
    """What is kept with it stands for what would be found in it."""
    body = json.dumps({"sites": ["https://a.example", "", "\0", "é", "\U0001f600", "https://a.example"]}).encode()
    first, *again = [dict(cast(Members, read_plain(body)))["sites"] for _ in range(4)]
    assert type(first) is list
    assert type(again[-1]) is Texts
    for sites in again:
        made, plain = (Circulation(sites=cast(list[str], one)) for one in (sites, first))
        assert (made.sites, made.keys, made.text) == (plain.sites, plain.keys, plain.text)


def test_arrays_seen_before_take_bounded_room() -> None:
    """A client that never sends one list twice must not fill the memory."""
    arrays = _Arrays()
    for number in range(50_000):
        arrays.keep(b"%d" % number * _SAMPLED, [str(number)])
    assert (len(arrays), len(arrays._once)) == (0, 50_000 % 16_384)
    for number in range(50_000):
        for _ in range(2):
            arrays.keep(b"%d" % number * _SAMPLED, [str(number)])
    assert 0 < len(arrays) < 16_384
    assert len(arrays._once) <= 16_384
    assert sum(getsizeof(texts[0]) for _, texts in arrays.values()) < arrays._bytes <= 8_000_000


def test_only_what_is_read_again_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that never comes again would push out those that do; a long one is more to keep than to read."""
    monkeypatch.setattr(strict_json, "_arrays", arrays := _Arrays())
    for body in (b'{"a":["x"]}', b'{"a":["y"]}', b'{"b":1,"a":["x"]}', b'{"a":["x"]}'):
        assert is_plain(body)
    assert [*arrays.values()] == [(b'["x"]', ["x"])]
    for _ in range(3):
        assert is_plain(b'{"a":[' + b'"x",' * 30_000 + b'"x"]}')
        assert is_plain(b'{"a":["x"],"b":["x"]}')
        assert is_plain(b'{"a":"b"}')
        assert is_plain(b'{"a":"]["}')
    assert len(arrays) == 1


def test_arrays_that_are_found_in_one_place_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may make a list that only looks like its last one, and each is to count as it is."""
    monkeypatch.setattr(strict_json, "_arrays", arrays := _Arrays())
    one, other = b'["x","y","z"]', b'["x","y,z"  ]'
    for array in (one, one, one, other, other, other, one, other):
        assert is_plain(b'{"a":' + array + b"}")
    assert len(arrays) == 1
    assert arrays.find(one) is None
    assert arrays.find(other) == ["x", "y,z"]


def test_the_interpreters_own_limit_is_left_to_the_scanner() -> None:
    """An application deep in its own calls is told what the scanner says, and nothing else."""
    body, limit = b'{"a":["b"],"c":1}', sys.getrecursionlimit()
    said = scan(body)

    def deep(levels: int) -> object:
        return parse(body) if levels == 0 else deep(levels - 1)

    answers = []
    for levels in range(limit - 150, limit):
        with suppress(RecursionError):  # of its own calls
            answers.append(deep(levels))
    assert answers
    assert answers == [said] * len(answers)
