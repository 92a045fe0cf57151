"""Digests: what stands in the counters for a document, a site, an idempotency key."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from sys import getsizeof

from fanout_guard.core.keys import ID_BYTES, id_text
from fanout_guard.core.model import SiteKey

_CACHED_SITES = 32_768
_CACHED_CHARACTERS = 256
_CACHED_LIST_CHARACTERS = 65_536
_CACHED_LISTS_BYTES = 4_000_000
_BYTES_OF_ENTRY = 200  # what a list takes beside its text and digests
_MANTISSA_BITS = 53  # of a double


class Digests:
    """Keyed digests, so that a tenant can neither guess nor craft two values that count as one.

    A site's digest is a whole number of 53 bits as a little-endian double: exact, and what Redis computes with.
    """

    def __init__(self, secret: str) -> None:
        self._secret = blake2b(secret.encode(), digest_size=32).digest()
        self._documents = blake2b(digest_size=ID_BYTES, key=self._secret, person=b"document")
        self._sites = _SiteDigests(self._secret)
        self._lists = _Lists()

    def document(self, document: str) -> bytes:
        """The digest of a document id."""
        state = self._documents.copy()
        state.update(document.encode())
        return id_text(state.digest())

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
        state = blake2b(digest_size=ID_BYTES, key=self._secret, person=b"idempotency")
        for part in (key, document or ""):
            raw = part.encode()
            state.update(struct.pack("<?Q", document is None, len(raw)) + raw)
        state.update(b"".join(map(self._sites.__getitem__, sites)))
        return id_text(state.digest())

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
