"""Names: the ids of charges, and the keys under which the counters keep what belongs to a tenant."""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from hashlib import blake2b
from urllib.parse import quote, unquote

from fanout_guard.core.model import Lease
from fanout_guard.core.tenant import check_tenant

FORMAT = 1
"""Release of the key format: part of every key, so that two formats never read each other's state."""

ID_BYTES = 12
ID_CHARACTERS = 16
"""Ids and digests have so many bytes, written as so many characters of URL-safe Base64."""

RATES_KEY = b"r"
LEASES_KEY = b"f"
CHARGE_KEY = b"c:"
"""What a decision charged; its id follows."""
DOCUMENT_KEY = b"d:"
"""The sites that count for a document; its digest follows."""
IDEMPOTENCY_KEY = b"i:"
"""The charge that an idempotency key stands for; its digest follows."""
REFUNDED_KEY = b"b:"
"""The sites of a decision that were refunded; its id follows."""

EVERYBODY = ""
"""Stands for all tenants together; no tenant has an empty id."""

_EVERYBODY_TAG = "*"

_TAG_CHARACTERS = 64
_IDS_AT_A_TIME = 64
_CACHED_TENANTS = 32_768
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_LEASE_ID = re.compile(r"[0-7](?:[A-Za-z0-9_-]{16}){1,3}")
_DOCUMENT = re.compile(DOCUMENT_KEY + rb"([A-Za-z0-9_-]{16})")

_ids: list[bytes] = []  # ready to be handed out
# A forked worker must not hand out those that its parent has ready.
os.register_at_fork(after_in_child=_ids.clear)


def new_id() -> bytes:
    """A fresh decision id, at random; made many at a time, since the system call costs more than an id may."""
    try:
        return _ids.pop()
    except IndexError:
        text = id_text(os.urandom(ID_BYTES * _IDS_AT_A_TIME))
        _ids.extend([text[at : at + ID_CHARACTERS] for at in range(ID_CHARACTERS, len(text), ID_CHARACTERS)])
        return text[:ID_CHARACTERS]


class KeySpace:
    """What a tenant's keys begin with, kept for the tenants seen last; the kind of a key follows (``RATES_KEY``, …).

    All keys of a tenant are in one hash slot, and none equals another's. Whole keys are not kept: they would take ten
    times the memory.
    """

    def __init__(self, prefix: str) -> None:
        self.stem = f"{prefix}:{FORMAT}:{{".encode()
        self.everybody = self._begin(_EVERYBODY_TAG)
        self._tenants: dict[str, bytes] = {}

    def of(self, tenant: str) -> bytes:
        """What all keys of ``tenant`` begin with."""
        own = self._tenants.get(tenant)
        if own is None:
            if len(self._tenants) >= _CACHED_TENANTS:
                self._tenants.clear()
            own = self._begin(tag(tenant)) if tenant else self.everybody
            self._tenants[tenant] = own
        return own

    def split(self, key: bytes) -> tuple[str, bytes] | None:
        """The tag of the tenant whose key this is and what follows it, or None where it is no key of this space."""
        tagged, end, rest = key.removeprefix(self.stem).partition(b"}:")
        if not end or not key.startswith(self.stem) or not tagged.isascii():
            return None
        return tagged.decode(), rest

    def _begin(self, tagged: str) -> bytes:
        return self.stem + tagged.encode() + b"}:"


def tag(tenant: str) -> str:
    """A tenant's hash tag: readable where that is short, never with a brace, a colon or an asterisk in it."""
    readable = quote(tenant, safe="")
    if len(readable) <= _TAG_CHARACTERS:
        return readable
    return "#" + blake2b(tenant.encode(), digest_size=18).hexdigest()


def tenant_of(tagged: str) -> str | None:
    """The tenant that has this tag, or None where the tag is a digest, or no tenant's."""
    tenant = unquote(tagged)
    try:
        return check_tenant(tenant) if tag(tenant) == tagged else None
    except ValueError:
        return None


def document_of(rest: bytes) -> bytes | None:
    """The digest of the document whose key goes on like this after its tenant; None where it is no document's key."""
    found = _DOCUMENT.fullmatch(rest)
    return found and found[1]


def parse_lease(lease_id: object) -> Lease | None:
    """The lease that ``lease_id`` names, or None where it is no lease id."""
    if not isinstance(lease_id, str) or not _LEASE_ID.fullmatch(lease_id):
        return None
    flags, raw = int(lease_id[0]), lease_id.encode()
    if len(raw) != 1 + ID_CHARACTERS * (1 + (flags >> 1).bit_count()):
        return None
    document = raw[1 + ID_CHARACTERS :][:ID_CHARACTERS] if flags & 2 else b""
    key = raw[-ID_CHARACTERS:] if flags & 4 else b""
    return Lease(raw[1 : 1 + ID_CHARACTERS], document, key, bool(flags & 1))


def id_text(raw: bytes) -> bytes:
    """Random bytes or a digest as they are written in keys and lease ids."""
    return b2a_base64(raw, newline=False).translate(_URL_SAFE)
