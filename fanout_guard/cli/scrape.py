"""What the application's own metrics tell, read from the text that Prometheus scrapes."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from math import isfinite
from urllib.parse import urlsplit

WAIT_S = 2.0

_AT_MOST_BYTES = 8 << 20
_PART_BYTES = 1 << 16
_LINE = re.compile(r"(fanout_guard_\w+)(?:\{(.*)\})? (\S+)(?: \S+)?")
_LABEL = re.compile(r'\b(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Scraped:
    """Rejections by policy since the workers started, and how many of those asked are in an outage or silent."""

    rejections: Counter[str] = field(default_factory=Counter)
    in_outage: int = 0
    silent: int = 0


def check_address(url: str) -> str:
    """``url`` itself, if metrics can be read there; ValueError, without any part of it, if not."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and not parts.username and parts.port != 0
    except ValueError:  # whose own text quotes the port
        named = False
    if not named or not url.isprintable() or " " in url:
        raise ValueError("expected http://host:port/metrics")
    return url


def scrape(urls: Sequence[str]) -> Scraped:
    """The figures of all addresses together."""
    rejections: Counter[str] = Counter()
    in_outage = silent = 0
    for url in urls:
        try:
            found = list(samples(_get(url)))
        except (OSError, HTTPException, ValueError):
            found = []
        silent += not found  # every family is there from the start: any other page is not the application's
        for name, labels, value in found:
            if name == "fanout_guard_decisions_total" and labels.get("outcome") == "rejected":
                rejections[labels.get("policy", "")] += int(value)
            elif name == "fanout_guard_outage" and value:
                in_outage += 1
    return Scraped(rejections, in_outage, silent)


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """The samples of this product in the text format: name, labels, value."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if isfinite(value):
            yield match[1], dict(_LABEL.findall(match[2] or "")), value


def _get(url: str) -> str:
    request = urllib.request.Request(url, headers={"Accept": "text/plain"})  # noqa: S310  (http only: check_address)
    read, until_s = bytearray(), time.monotonic() + WAIT_S
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310
        while len(read) < _AT_MOST_BYTES and (part := answer.read1(_PART_BYTES)):
            if time.monotonic() > until_s:  # the time-out above is that of a single part
                raise TimeoutError
            read += part
    return read.decode("utf-8", "replace")
