"""From the bytes of a body to a circulation."""

from __future__ import annotations

import json
from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.middleware_cost import request
from fanout_guard.core.extract import Reader
from fanout_guard.core.source import parse_source, parse_sources
from fanout_guard.core.strict_json import parse, read_plain, scan


def body_of(sites: int, *, first: int = 0, **members: object) -> bytes:
    """A circulation to some sites."""
    names = [f"https://site-{number}.example" for number in range(first, first + sites)]
    document = {"document_id": "d-1", "document_headline": "Local news", "target_sites": names}
    return json.dumps(document | members).encode()


@pytest.mark.parametrize("sites", [1, 300, 10_000])
def test_parse(benchmark: BenchmarkFixture, sites: int) -> None:
    """The strict parse of what most clients send: a document to sites that an earlier one went to."""
    body = body_of(sites)
    assert read_plain(body) is not None
    benchmark(parse, body)


def test_parse_a_list_never_seen(benchmark: BenchmarkFixture) -> None:
    """What the first document to a list of sites costs."""
    first = count(0, 300)
    benchmark.pedantic(parse, setup=lambda: ((body_of(300, first=next(first)),), {}), rounds=2000)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("sites", [1, 300, 10_000])
def test_parse_what_is_not_plain(benchmark: BenchmarkFixture, sites: int) -> None:
    """The strict parse of what the scanner reads, here after a fraction in the last member: nothing costs more."""
    body = body_of(sites, priority=0.5)
    assert read_plain(body) is None
    benchmark(parse, body)


@pytest.mark.parametrize("sites", [1, 300, 10_000])
def test_json_loads(benchmark: BenchmarkFixture, sites: int) -> None:
    """What the application's own parse costs."""
    benchmark(json.loads, body_of(sites))


def test_extract(benchmark: BenchmarkFixture) -> None:
    """Tenant and circulation of a 300-site request, its parse included."""
    body = body_of(300)
    reader = Reader(
        tenant=parse_source("header:X-Tenant-ID"),
        document=parse_source("json:document_id"),
        sites=parse_sources("json:target_sites"),
    )
    assert reader.read(request("/", body), {}, body).circulation is not None
    benchmark(reader.read, request("/", body), {}, body)


def test_refuse_what_is_no_json(benchmark: BenchmarkFixture) -> None:
    """A body that breaks off at its end, which is read twice."""
    body = body_of(300)[:-1]
    with pytest.raises(ValueError, match="not JSON"):
        scan(body)
    benchmark(pytest.raises, ValueError, parse, body)
