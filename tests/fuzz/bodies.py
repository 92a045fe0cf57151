"""Bodies that try to look smaller to the guard than to the application."""

from __future__ import annotations

from random import Random

_NAMES = (
    "target_sites",
    "target_sites",
    "document_id",
    "Target_Sites",
    "targetSites",
    "target-sites",
    "target_sites\\u0000",
    "target_sites\\u0000x",
    "target\\u005fsites",
    "target_\\u017fites",
    "target_site\\u017f",
    "\\u200btarget_sites",
    "target_sites\\ud800",
    " target_sites",
    "target_sites ",
    "ｔarget_sites",
    "sites",
    "x",
    "__proto__",
    "",
)
_VALUES = (
    '"d-1"',
    '"Site1"',
    "7",
    "-0",
    "1e2",
    "1.0",
    "1e999",
    "1" * 400,
    "NaN",
    "Infinity",
    "null",
    "true",
    "[]",
    "{}",
    '"\\ud800"',
    '"\\udc00x"',
    '"\\ud83d\\ude00"',
    '{"id":1}',
    '{"id":1,"id":2}',
    '["a","b","c"]',
    '{"target_sites":["a","b","c"]}',
)
_TOKENS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"/", b"//", b"/*", b"*/", b"#", b"'", b"`", b"\0", b"\n", b" "),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x0b", b"\xc2\xa0"),
    *(b"null", b"true", b"NaN", b"-", b"+", b".", b"e", b"0", b"1", b"\\u", b"\\u0000", b"\\ud800", b"\\udc00", b"\\x"),
    *(b',"target_sites":["a","b","c"]', b'"target_sites":["a","b","c"],', b"{}{}", b"\x1e", b"undefined"),
)


def body(random: Random) -> bytes:
    """One body: an object near what is expected, in two of three cases damaged afterwards."""
    whole = _object(random).encode()
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        whole = _damaged(random, whole)
    return whole


def _object(random: Random) -> str:
    members = ['"document_id":"d-1"', f'"target_sites":{_array(random)}']
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        value = _array(random) if random.random() < 0.6 else random.choice(_VALUES)
        members.append(f'"{random.choice(_NAMES)}":{value}')
    random.shuffle(members)
    if random.random() < 0.1:
        members.pop()
    space = random.choice(("", "", " ", "\r\n\t"))
    return space + "{" + f",{space}".join(members) + "}" + space


def _array(random: Random) -> str:
    if random.random() < 0.7:
        return "[" + ",".join(f'"Site{i}"' for i in range(random.randrange(5))) + "]"
    return "[" + ",".join(random.choice(_VALUES) for _ in range(random.randrange(4))) + "]"


def _damaged(random: Random, whole: bytes) -> bytes:
    at = random.randrange(len(whole) + 1)
    end = min(len(whole), at + random.choice((1, 1, 1, 2, 5, 20)))
    match random.randrange(6):
        case 0:
            return whole[:at] + whole[end:]
        case 1:
            return whole[:at] + bytes([random.randrange(256)]) + whole[end:]
        case 2:
            return whole[:at] + whole[at:end] * 2 + whole[end:]
        case 3:
            return whole[:at] + whole[at:end].swapcase() + whole[end:]
        case _:
            return whole[:at] + random.choice(_TOKENS) + whole[at:]
