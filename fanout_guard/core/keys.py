"""Names and digests: what stands in the counters for a tenant, a document, a site, a charge."""

from __future__ import annotations

import os
import re
import struct
from binascii import b2a_base64
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from sys import getsizeof
from urllib.parse import quote, unquote

from fanout_guard.core.model import Lease, SiteKey
from fanout_guard.core.tenant import check_tenant

FORMAT = 1
"""Release of the key format: part of every key, so that two formats never read each other's state."""

ID_CHARACTERS = 16
"""Ids and digests are this many characters of URL-safe Base64: 96 bits."""
_DIGEST_BYTES = 12

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
_CACHED_SITES = 32_768
_CACHED_CHARACTERS = 256
_CACHED_LIST_CHARACTERS = 65_536
_CACHED_LISTS_BYTES = 4_000_000
_BYTES_OF_ENTRY = 200
_MANTISSA_BITS = 53
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
        text = _text(os.urandom(_DIGEST_BYTES * _IDS_AT_A_TIME))
        _ids.extend([text[at : at + ID_CHARACTERS] for at in range(ID_CHARACTERS, len(text), ID_CHARACTERS)])
        return text[:ID_CHARACTERS]


class Digests:
    """Keyed digests, so that a tenant can neither guess nor craft two values that count as one.

    A site's digest is a whole number of 53 bits as a little-endian double: exact, and what Redis computes with.
    """

    def __init__(self, secret: str) -> None:
        self._secret = blake2b(secret.encode(), digest_size=32).digest()
        self._documents = blake2b(digest_size=_DIGEST_BYTES, key=self._secret, person=b"document")
        self._sites = _SiteDigests(self._secret)
        self._lists = _Lists()

    def document(self, document: str) -> bytes:
        """The digest of a document id."""
        state = self._documents.copy()
        state.update(document.encode())
        return _text(state.digest())

    def sites(self, sites: Sequence[SiteKey], text: str | None = None) -> bytes:
        """The distinct sites, 8 bytes each, in the order of their first entries.

        ``text`` is what joining them by NUL gives, where that is known; such lists are remembered, but for long ones.
        """
        if text is None or len(text) > _CACHED_LIST_CHARACTERS:
            return self._digested(sites)  # of a long text, the look-up alone costs a fifth of this
        # Where a name holds a NUL, lists of different lengths may give one text. Only lists without such names are
        # kept; another list of the same text and length has none either.
        kept = self._lists.get(text)
        if kept is not None and kept[0] == len(sites):
            return kept[1]
        digests = self._digested(sites)
        if text.count("\0") == len(sites) - 1:
            self._lists.keep(text, len(sites), digests)
        return digests

    def counted_sites(self, sites: Sequence[SiteKey]) -> tuple[bytes, list[int]]:
        """As ``sites``, with the number of entries of each."""
        counts = Counter(sites)
        return self._digested(tuple(counts)), list(counts.values())

    def idempotency(self, key: str, document: str | None, sites: Sequence[SiteKey]) -> bytes:
        """The digest of an idempotency key with its circulation, entry by entry."""
        state = blake2b(digest_size=_DIGEST_BYTES, key=self._secret, person=b"idempotency")
        for part in (key, document or ""):
            raw = part.encode()
            state.update(struct.pack("<?Q", document is None, len(raw)) + raw)
        state.update(b"".join(map(self._sites.__getitem__, sites)))
        return _text(state.digest())

    def _digested(self, sites: Sequence[SiteKey]) -> bytes:
        distinct = sites if len(set(sites)) == len(sites) else dict.fromkeys(sites)
        return b"".join(map(self._sites.__getitem__, distinct))


class _Lists(dict[str, tuple[int, bytes]]):
    """Entries and digests of the lists seen last: a tenant's next document mostly goes to the same sites.

    Forgets everything when full, so that no client can make it grow. Each list is weighed with its overhead, which is
    far more than the characters of a short one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def keep(self, text: str, entries: int, digests: bytes) -> None:
        size = _BYTES_OF_ENTRY + getsizeof(text) + getsizeof(digests)
        self._bytes += size
        if self._bytes > _CACHED_LISTS_BYTES:
            self.clear()
            self._bytes = size
        self[text] = (entries, digests)


class _SiteDigests(dict[SiteKey, bytes]):
    """The digests of the sites seen last: publishers circulate to the same sites again and again.

    Hashing a site costs ten times a look-up. Forgets everything when full and keeps no long name, so that no client
    can make it grow.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._secret = secret

    def __missing__(self, site: SiteKey) -> bytes:
        text, person = (site, b"site") if isinstance(site, str) else (site.text, b"value")
        raw = blake2b(text.encode(), digest_size=8, key=self._secret, person=person).digest()
        digest = struct.pack("<d", int.from_bytes(raw, "little") >> (64 - _MANTISSA_BITS))
        if len(text) <= _CACHED_CHARACTERS:
            if len(self) >= _CACHED_SITES:
                self.clear()
            self[site] = digest
        return digest


class KeySpace:
    """What a tenant's keys begin with, kept for the tenants seen last; the kind of a key follows (``RATES_KEY``, …).

    All keys of a tenant are in one hash slot, and none equals another's. Whole keys are not kept: they would take ten
    times the memory.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
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


def _text(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE)
