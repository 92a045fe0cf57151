"""The ``RateLimit`` fields beside those of the application."""

from __future__ import annotations

from tests.asgi.driving import Recorder, body_of, guarded, post


async def test_fields_of_the_app_stand() -> None:
    """No field that the application set is dropped or doubled, whatever its case."""
    app = Recorder(headers=[(b"RateLimit", b'"own";r=1'), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    sent = await post(guarded(app), body_of(3))
    assert sent.header("ratelimit") == '"own";r=1'
    assert [value for name, value in sent.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert sent.header("ratelimit-policy")


async def test_the_fields_are_the_drafts() -> None:
    """Clients parse them as RFC 9651 lists."""
    sent = await post(guarded(Recorder()), body_of(250))
    policies = '"circulation";q=300;qu="sites", "document";q=300;w=3600;qu="sites"'
    assert sent.header("ratelimit-policy") == policies
    field = sent.header("ratelimit")
    assert field is not None
    assert field.startswith('"document";r=50;t=')
    assert 0 < int(field.rpartition("=")[2]) <= 5400


async def test_fields_can_be_left_out() -> None:
    """A deployment that wants no fields gets none, on refusals neither."""
    for count in (3, 301):
        sent = await post(guarded(Recorder(), HEADERS="false"), body_of(count))
        assert not [name for name, _ in sent.headers if name.startswith("ratelimit")]


async def test_a_tenant_that_is_not_guarded_gets_no_fields() -> None:
    """Caps that nobody holds it to are none."""
    sent = await post(guarded(Recorder(), TENANT__default__MODE="off"), body_of(301))
    assert sent.status == 200
    assert not [name for name, _ in sent.headers if name.startswith("ratelimit")]


async def test_the_time_in_the_fields_is_that_of_the_refusals() -> None:
    """A client that paces itself by the field must not wait longer than one that is refused."""
    guard = guarded(Recorder())
    field = (await post(guard, body_of(250))).header("ratelimit")
    refused = (await post(guard, body_of(250, first=250))).problem["retry_after"]
    assert field is not None
    assert int(field.rpartition("=")[2]) - refused in (0, 1)
