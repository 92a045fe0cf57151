"""Key names and lease ids."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.keys import (
    CHARGE_KEY,
    DOCUMENT_KEY,
    EVERYBODY,
    ID_CHARACTERS,
    IDEMPOTENCY_KEY,
    LEASES_KEY,
    RATES_KEY,
    REFUNDED_KEY,
    KeySpace,
    new_id,
    parse_lease,
    tag,
    tenant_of,
)
from fanout_guard.core.model import Lease

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TENANTS = TEXTS.filter(lambda text: len(text.encode()) <= 256)
IDS = st.text("ABCDEFabcdef0123456789-_", min_size=ID_CHARACTERS, max_size=ID_CHARACTERS).map(str.encode)
LEASES = st.builds(Lease, id=IDS, document=st.just(b"") | IDS, idempotency=st.just(b"") | IDS, local=st.booleans())


def names(own: bytes) -> list[bytes]:
    """Every kind of key of one tenant, with ids that look like other parts of keys."""
    kinds = (RATES_KEY, LEASES_KEY, CHARGE_KEY + b"x", DOCUMENT_KEY + b"r", IDEMPOTENCY_KEY + b"f", REFUNDED_KEY)
    return [own + kind for kind in kinds]


def slot(key: bytes) -> int:
    """A cluster's hash slot, by the cluster's specification: CRC16/XMODEM of what stands in the first braces."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    hashed = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    crc = 0
    for byte in hashed:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16_384


def test_the_slot_is_that_of_the_specification() -> None:
    """The property below is worth what this function is."""
    assert slot(b"123456789") == 0x31C3
    assert slot(b"foo{hash_tag}") == slot(b"hash_tag") == 2515


@given(TENANTS, st.sampled_from(["fanout", "a:b", "p/q", "u@h"]))
def test_all_keys_of_a_tenant_are_in_one_slot(tenant: str, prefix: str) -> None:
    """A script may only touch one slot, whatever a tenant is called."""
    assert len({slot(name) for name in names(KeySpace(prefix).of(tenant))}) == 1


@given(TENANTS, TENANTS)
def test_no_key_of_a_tenant_is_a_key_of_another(one: str, other: str) -> None:
    """No id, however crafted, reads or writes another tenant's counters."""
    space = KeySpace("fanout")
    if one != other:
        assert tag(one) != tag(other)
        assert not set(names(space.of(one))) & set(names(space.of(other)))
    assert not set(names(space.of(one))) & set(names(space.of(EVERYBODY)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a:b", "a"),
        ("x:lease", "x"),
        ("acme", "ACME"),
        ("acme", "acme "),
        ("\u00e9", "e\u0301"),
        ("#", "%23"),
        ("*", "%2A"),
        ("a}b", "a%7Db"),
        ("a" * 64, "a" * 65),
        ("a" * 65, "a" * 66),
    ],
)
def test_tenants_that_look_alike_are_apart(one: str, other: str) -> None:
    """Ids are exact: no folding, no trimming, no separator that an id can hold."""
    assert tag(one) != tag(other)


@given(TENANTS)
def test_a_tag_has_nothing_that_ends_it(tenant: str) -> None:
    """Braces end a hash tag, a colon ends a part of a key, and an asterisk is everybody."""
    made = tag(tenant)
    assert made.isascii()
    assert not set(made) & set("{}:* \r\n\0")
    assert 1 <= len(made) <= 64


@given(TENANTS)
def test_a_readable_tag_leads_back_to_its_tenant(tenant: str) -> None:
    """Lists of who uses what show names, and never a wrong one."""
    assert tenant_of(tag(tenant)) in (tenant, None)


def test_everybodys_tag_and_digests_lead_to_no_tenant() -> None:
    """What is no single tenant's must not look like one."""
    assert tenant_of("*") is None
    assert tenant_of(tag("x" * 256)) is None


@given(TENANTS)
def test_a_key_can_be_taken_apart(tenant: str) -> None:
    """Lists of keys find the tenant again, and pass over keys that are not ours."""
    space = KeySpace("fanout")
    assert space.split(space.of(tenant) + DOCUMENT_KEY + b"a}:b") == (tag(tenant), b"d:a}:b")


@pytest.mark.parametrize("key", [b"", b"fanout:1:{acme", b"fanout:2:{acme}:r", b"other", b"fanout:1:{\xff}:r"])
def test_what_is_no_key_of_ours_is_passed_over(key: bytes) -> None:
    """Servers are shared with others, and with releases that came before or after."""
    assert KeySpace("fanout").split(key) is None


def test_key_names_are_kept_for_a_bounded_number_of_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that make up tenants must not fill the memory."""
    monkeypatch.setattr("fanout_guard.core.keys._CACHED_TENANTS", 3)
    space = KeySpace("fanout")
    first = space.of("t0")
    assert space.of("t0") is first
    for number in range(10):
        space.of(f"t{number}")
    assert space.of("t0") is not first
    assert names(space.of("t0")) == names(first)


@given(LEASES)
def test_a_lease_id_leads_back_to_its_lease(lease: Lease) -> None:
    """Any worker can release or refund what another admitted, with nothing but the id."""
    assert parse_lease(str(lease)) == lease


@given(LEASES)
def test_a_lease_id_is_plain(lease: Lease) -> None:
    """It goes through queues, URLs, headers and logs unquoted."""
    assert str(lease).replace("-", "").replace("_", "").isalnum()


@given(st.text() | st.binary() | st.none() | st.integers())
def test_what_is_no_lease_id_is_none(value: object) -> None:
    """Lease ids come back from queues and people; a wrong one is no error of the program."""
    lease = parse_lease(value)
    assert lease is None or str(lease) == value


@given(LEASES, st.data())
def test_a_mangled_lease_id_never_raises(lease: Lease, data: st.DataObject) -> None:
    """Cut, padded, or with a character changed: it is another lease, or none."""
    text = str(lease)
    cut = data.draw(st.integers(0, len(text)))
    for mangled in (text[:cut], text + text[:cut], text[:cut] + "=" + text[cut:], f" {text}", f"{text}\n", "8" + text):
        found = parse_lease(mangled)
        assert found is None or str(found) == mangled


def test_ids_are_never_given_twice() -> None:
    """The counters apply an id once: two decisions of one id would be one charge."""
    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert {len(each) for each in ids} == {ID_CHARACTERS}


def test_forked_workers_give_ids_of_their_own() -> None:
    """Servers fork workers after they loaded the application; what was made in advance must not be shared."""
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(new_id() for _ in range(100)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    own = {new_id() for _ in range(100)}
    assert len(theirs) == 100 * ID_CHARACTERS
    assert own.isdisjoint(theirs[at : at + ID_CHARACTERS] for at in range(0, len(theirs), ID_CHARACTERS))
