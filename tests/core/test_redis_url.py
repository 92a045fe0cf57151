"""Addresses of servers: accepted forms, and that no secret of one is ever shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.redis_url import check_redis_url, masked_redis_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@redis.internal:6379/15", "redis://***@redis.internal:6379/15"),
        ("redis://user:p@ss:w0rd@h", "redis://***@h"),
        ("redis://:pa,ss@h", "redis://***@h"),
        ("redis+cluster://:pa%2Css@a,b", "redis+cluster://***@a,b"),
        ("redis://user@h?password=secret", "redis://***@h?password=***"),
        ("rediss://user:p%2Fw%23@[::1]:6380?ssl_cert_reqs=none", "rediss://***@[::1]:6380?ssl_cert_reqs=***"),
        ("redis://h/0?password=secret&db=1", "redis://h/0?password=***&db=***"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=***"),
        ("unix://user:pw@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis+sentinel://:pw@a:26379,b:26379/main/3", "redis+sentinel://***@a:26379,b:26379/main/3"),
        ("redis+sentinel://a,b/main", "redis+sentinel://a,b/main"),
        ("redis+cluster://a:7000,b:7001,10.0.0.3", "redis+cluster://a:7000,b:7001,10.0.0.3"),
        ("redis://:pässwörd@h", "redis://***@h"),
        ("redis://h?ssl=Yes&ssl_check_hostname=0", "redis://h?ssl=***&ssl_check_hostname=***"),
        (
            "redis+cluster://a?db=0&ssl=true&ssl_cert_reqs=optional",
            "redis+cluster://a?db=***&ssl=***&ssl_cert_reqs=***",
        ),
    ],
)
def test_an_address_is_accepted_and_shown_without_its_secrets(url: str, shown: str) -> None:
    """Every form of the contract works, and a look at the settings gives nothing away."""
    assert check_redis_url(url) == url
    assert masked_redis_url(url) == shown


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("localhost:6379", "another scheme"),
        ("http://localhost", "another scheme"),
        ("REDIS://localhost", "another scheme"),
        ("redis:/localhost", "another scheme"),
        ("redis://", "host is missing"),
        ("redis://:6379", "host is missing"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:63 79", "host is missing"),
        ("redis://h/zero", "database number"),
        ("redis://h/1/2", "database number"),
        ("redis://a,b", "several hosts"),
        ("redis://h?socket_timeout=5", "query parameter"),
        ("redis://h?", "query parameter"),
        ("redis://h?hunter22=x", "query parameter"),
        ("redis://h?password=", "^password is empty"),
        ("redis://h?password", "^password is empty"),
        ("redis://h?db=one", "db is not a database number"),
        ("redis://h?db=-1", "db is not a database number"),
        ("redis://h?db=1&db=2", "db occurs twice"),
        ("redis://:one@h?password=two", "password differs"),
        ("redis://one@h?username=two", "username differs"),
        ("redis://h?client_name=a%20b", "client_name has a character"),
        ("redis://h?ssl=maybe", "ssl is neither true nor false"),
        ("rediss://h?ssl_check_hostname=ture", "ssl_check_hostname is neither true nor false"),
        ("rediss://h?ssl_cert_reqs=some", "ssl_cert_reqs is not none, optional or required"),
        ("redis://h?ssl_cert_reqs=none", "needs TLS"),
        ("redis+cluster://h?ssl=false&ssl_ca_certs=/ca", "needs TLS"),
        ("unix:///s?ssl=true", "a socket has no TLS"),
        ("unix:///s?ssl_keyfile=/k", "a socket has no TLS"),
        ("redis+cluster://a:1?db=3", "database 0 only"),
        ("redis://:pa/ss@h", "percent-encoded"),
        ("redis://:pa#ss@h", "percent-encoded"),
        ("redis://:pa?ss@h", "percent-encoded"),
        ("redis://:pa[ss@h", "percent-encoded"),
        ("redis://:pa ss@h", "percent-encoded"),
        ("redis://:pa℀ss@h", "percent-encoded"),
        ("redis://h\n", "percent-encoded"),
        ("redis+cluster://u:pw@a:1,u:pw@b:2", "percent-encoded"),
        ("redis+sentinel://:pw@a,:pw@b/main", "percent-encoded"),
        ("redis+cluster://a:1,u:pw@b:2", "percent-encoded"),
        ("unix://redis.sock", "absolute"),
        ("unix:///", "absolute"),
        ("redis+sentinel://a:1", "/service"),
        ("redis+sentinel://a:1/main/x", "/service"),
        ("redis+sentinel://a,,b/main", "host is missing"),
        ("redis+cluster://a:1/3", "database 0 only"),
    ],
)
def test_another_address_is_refused_before_anything_connects(url: str, problem: str) -> None:
    """An address that the driver would misread must stop the start, not the first request."""
    with pytest.raises(ValueError, match=problem):
        check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter22",
        "redis://user:hunter22",
        "hunter22@localhost",
        "hunter22://localhost",
        "redis://:hun/ter22@h",
        "redis://:x?hunter22@h",
        "redis://:a@hunter22#@h",
        "redis://h?password=x@hunter22",
        "redis://h?hunter22",
        "redis://h?hunter22=1",
        "redis://h#hunter22",
        "redis://h:hunter22",
        "redis://h/hunter22",
        "",
    ],
)
def test_of_an_address_that_is_not_understood_only_the_scheme_is_shown(url: str) -> None:
    """In a mangled address the password may stand anywhere."""
    assert masked_redis_url(url) in ("redis://***", "***")


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_percent_encoded_password_is_accepted_and_hidden(password: str) -> None:
    """Generated passwords hold any character."""
    encoded = quote(password, safe="")
    assert masked_redis_url(check_redis_url(f"redis://u:{encoded}@h:1/0")) == "redis://***@h:1/0"


@given(st.text())
def test_a_raw_password_never_shows(password: str) -> None:
    """Nor when its characters break the address."""
    marked = f"s3cr3t{password}s3cr3t"
    url = f"redis://user:{marked}@host:6379/0"
    assert "s3cr3t" not in masked_redis_url(url)
    assert "s3cr3t" not in _complaint(url)


def _complaint(url: str) -> str:
    try:
        check_redis_url(url)
    except ValueError as error:
        return str(error)
    return ""
