"""The log: one record per rejection, sampled in a flood, and one line at each end of an outage."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanout_guard.core.model import UNWATCHED
from fanout_guard.observe.logging import LogObserver
from tests.observe.conftest import Decide, HandClock


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return vars(record)


def test_a_rejection_is_one_record_with_its_numbers(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """On call, the line must answer who was refused, by what, and how far over it was."""
    LogObserver().decided(reject("document", used=250, fits_now=50, retry_after=60), 0.001)
    (record,) = log.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "circulation rejected: tenant=acme document=d-1 policy=document limit=300 used=250 "
        "requested_sites=400 fits_now=50 retry_after=60"
    )
    expected = {
        "event": "circulation-rejected",
        "outcome": "rejected",
        "tenant": "acme",
        "document": "d-1",
        "policy": "document",
        "violated_policies": ["document"],
        "limit": 300,
        "used": 250,
        "requested_sites": 400,
        "fits_now": 50,
        "retry_after": 60,
        "degraded": False,
    }
    assert {name: fields(record)[name] for name in expected} == expected


def test_a_shadowed_circulation_names_the_policy_that_would_have_refused(
    shadow: Decide, log: pytest.LogCaptureFixture
) -> None:
    """Shadow mode is there to find out who would be over, so it must say as much as a refusal does."""
    LogObserver().decided(shadow("circulation", "rate-60"), 0.001)
    (record,) = log.records
    assert record.getMessage().startswith("circulation shadowed: tenant=acme document=d-1 policy=circulation ")
    assert fields(record)["violated_policies"] == ["circulation", "rate-60"]


def test_a_rejection_in_an_outage_says_that_it_is_degraded(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """A refusal by one process's share of a cap would else look like a wrong cap."""
    LogObserver().decided(reject("rate-60", degraded=True), 0.001)
    assert log.records[0].getMessage().endswith(" degraded=True")


def test_an_admitted_circulation_is_not_logged(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """A line per normal request is what access logs are for."""
    LogObserver().decided(decide(), 0.001)
    assert not log.records


def test_an_unreadable_request_is_logged_with_what_is_wrong_and_whose_it_is(log: pytest.LogCaptureFixture) -> None:
    """In shadow mode nobody else is told, and in any other only the client is."""
    LogObserver().unreadable("unreadable-circulation", "Site 1 is a list.", "acme")
    (record,) = log.records
    expected = 'request unreadable: tenant=acme policy=unreadable-circulation detail="Site 1 is a list."'
    assert record.getMessage() == expected
    assert fields(record)["event"] == "request-unreadable"
    assert (fields(record)["tenant"], fields(record)["detail"]) == ("acme", "Site 1 is a list.")


def test_an_unreadable_request_that_names_nobody_is_logged_without_a_tenant(log: pytest.LogCaptureFixture) -> None:
    """The default tenant is not to be blamed for what could not be read."""
    LogObserver().unreadable("tenant-unidentified", "No tenant.", None)
    assert log.records[0].getMessage() == 'request unreadable: policy=tenant-unidentified detail="No tenant."'


@pytest.mark.parametrize("hostile", ["a\nrequest", "\u2028", "\x1b[2J"])
def test_nothing_of_an_unreadable_request_can_forge_a_line(hostile: str, log: pytest.LogCaptureFixture) -> None:
    """Its tenant is whatever the client sent, and what is wrong with it may quote that; neither was checked."""
    LogObserver().unreadable("body-too-large", f"Not {hostile}.", hostile)
    assert log.records[0].getMessage().isprintable()
    assert str(fields(log.records[0])["tenant"]).isprintable()
    assert str(fields(log.records[0])["detail"]).isprintable()


def test_a_refusal_of_no_known_kind_is_logged_as_other(log: pytest.LogCaptureFixture) -> None:
    """A user's ``tenant=`` hook that fails refuses requests too, and an empty reason would look like a bug here."""
    LogObserver().unreadable("", "Why.", None)
    assert log.records[0].getMessage() == "request unreadable: policy=other detail=Why."


def test_a_flood_is_sampled_and_counted(reject: Decide, log: pytest.LogCaptureFixture, clock: HandClock) -> None:
    """A client in a retry loop must fill neither the disk nor the on-call person's screen."""
    observer = LogObserver(burst=3, clock=clock)
    for _ in range(100):
        observer.decided(reject(), 0.001)
    assert len(log.records) == 3
    clock.seconds += 1
    observer.decided(reject(), 0.001)
    summary, next_one = log.records[3:]
    assert summary.getMessage() == "97 more of circulation, not logged one by one"
    assert (fields(summary)["policy"], fields(summary)["count"]) == ("circulation", 97)
    assert next_one.getMessage().startswith("circulation rejected")


def test_a_flood_of_unreadable_requests_is_sampled_and_counted(log: pytest.LogCaptureFixture, clock: HandClock) -> None:
    """Whoever sends nonsense needs no tenant for it, and may send nothing else."""
    observer = LogObserver(burst=3, clock=clock)
    for _ in range(100):
        observer.unreadable("body-too-large", "Too long.", None)
    assert len(log.records) == 3
    clock.seconds += 1
    observer.unreadable("tenant-unidentified", "No tenant.", None)
    assert log.records[3].getMessage() == "97 more of body-too-large, not logged one by one"


def test_counters_of_a_tenant_that_cannot_be_read_are_an_error_in_the_log(
    log: pytest.LogCaptureFixture, clock: HandClock
) -> None:
    """It is decided as in an outage, but no outage begins that would say so; its requests come as fast as ever."""
    observer = LogObserver(burst=2, clock=clock)
    for _ in range(50):
        observer.counter_error("wrongtype")
    observer.counter_error("script")
    told = [(record.levelno, fields(record)["event"], fields(record)["reason"]) for record in log.records]
    lines = [(logging.ERROR, "counters-unreadable", reason) for reason in ("wrongtype", "wrongtype", "script")]
    assert told == lines
    assert log.records[0].getMessage() == "the counters of a tenant cannot be read (wrongtype): decided as in an outage"


def test_the_count_of_a_flood_is_written_by_the_next_admitted_circulation(
    decide: Decide, reject: Decide, log: pytest.LogCaptureFixture, clock: HandClock
) -> None:
    """When the flood is over nobody is rejected any more, and its count must not wait for the next flood."""
    observer = LogObserver(burst=1, clock=clock)
    for _ in range(5):
        observer.decided(reject(), 0.001)
    clock.seconds += 1
    observer.decided(decide(), 0.001)
    observer.decided(decide(), 0.001)
    assert [record.getMessage() for record in log.records[1:]] == ["4 more of circulation, not logged one by one"]


def test_closing_writes_the_count_of_a_flood(reject: Decide, log: pytest.LogCaptureFixture, clock: HandClock) -> None:
    """A worker that is replaced in the middle of a flood takes the count with it otherwise."""
    observer = LogObserver(burst=1, clock=clock)
    for _ in range(5):
        observer.decided(reject(), 0.001)
    observer.close()
    observer.close()
    assert [record.getMessage() for record in log.records[1:]] == ["4 more of circulation, not logged one by one"]


def test_a_flood_by_one_policy_hides_no_other(reject: Decide, log: pytest.LogCaptureFixture, clock: HandClock) -> None:
    """The one rejection by another policy is the one that is looked for."""
    observer = LogObserver(burst=2, clock=clock)
    for _ in range(50):
        observer.decided(reject("rate-60"), 0.001)
    observer.decided(reject("inflight-global"), 0.001)
    assert fields(log.records[-1])["policy"] == "inflight-global"


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    log: pytest.LogCaptureFixture, clock: HandClock
) -> None:
    """A fail-open that is silent is found by the customers, and one that logs each request by the disk."""
    observer = LogObserver(on_outage="open", clock=clock)
    observer.outage(True, "connection")
    observer.outage(True, "timeout")
    clock.seconds += 12.5
    observer.outage(False, "connection")
    observer.outage(False, "connection")
    began, ended = log.records
    assert began.levelno == logging.ERROR
    assert began.getMessage() == (
        "outage began: counters out of reach (connection); until it ends, circulations are admitted without counting"
    )
    assert ended.getMessage() == "outage ended after 12.5 s (connection)"
    assert (fields(ended)["event"], fields(ended)["seconds"]) == ("outage-ended", 12.5)


def test_an_outage_that_goes_on_for_another_reason_says_so_once(log: pytest.LogCaptureFixture) -> None:
    """A server that is back with another password needs a hand; one that is down, and then starts, does not."""
    observer = LogObserver()
    observer.counter_error("auth")  # of the calls that fail when one begins
    for _ in range(2):
        observer.outage(True, "connection")
        for reason in ("connection", "timeout", "loading", "busy", "auth", "connection", "auth", "hunter2"):
            observer.counter_error(reason)
        observer.outage(False, "auth")
        observer.counter_error("auth")
    told = [(fields(record)["event"], fields(record)["reason"]) for record in log.records]
    lines = ["outage-began", "outage-goes-on", "outage-goes-on", "outage-ended"]
    assert told == list(zip(lines, ["connection", "auth", "other", "connection"], strict=True)) * 2
    assert log.records[1].getMessage() == "outage goes on for another reason (auth)"
    observer.outage(True, "auth")
    observer.counter_error("auth")
    assert fields(log.records[-1])["event"] == "outage-began"


def test_an_outage_that_nobody_watches_any_more_is_not_told_as_ended(
    log: pytest.LogCaptureFixture, clock: HandClock
) -> None:
    """A worker that is restarted in an outage would else say that the server is back."""
    observer = LogObserver(clock=clock)
    observer.outage(True, "connection")
    clock.seconds += 2.5
    observer.outage(False, UNWATCHED)
    ended = log.records[-1]
    assert ended.getMessage() == "outage no longer watched, and not seen to end, after 2.5 s (connection)"
    assert (fields(ended)["event"], fields(ended)["reason"]) == ("outage-unwatched", "connection")


@pytest.mark.parametrize(
    ("on_outage", "said"), [("local", "own counters"), ("open", "admitted"), ("closed", "503"), ("", "")]
)
def test_the_line_of_an_outage_says_what_it_means_for_requests(
    on_outage: str, said: str, log: pytest.LogCaptureFixture
) -> None:
    """Whether anything is still capped is the first question of the person who is woken up."""
    LogObserver(on_outage=on_outage).outage(True, "timeout")
    assert said in log.text


def test_the_reason_of_an_outage_is_one_of_the_fixed_words(log: pytest.LogCaptureFixture) -> None:
    """The server's own text may quote a password, so nothing but the known words is written."""
    LogObserver().outage(True, "AUTH failed for redis://:hunter2@redis")
    assert "hunter2" not in log.text
    assert fields(log.records[0])["reason"] == "other"


@pytest.mark.parametrize(
    "tenant",
    [
        "a\nb",
        "a\r\nb",
        "a\x1b[2Jb",
        "a\x00b",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "a\u202eb",
        "a\ud800b",
        "a\\nb",
    ],
)
def test_a_tenant_cannot_forge_a_line(tenant: str, reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """The tenant id is a header: with a line break in it a client would write log lines of its own."""
    LogObserver().decided(reject(tenant=tenant, document=tenant), 0.001)
    (record,) = log.records
    assert record.getMessage().isprintable()
    for name in ("tenant", "document"):
        assert fields(record)[name].isprintable()
        assert fields(record)[name] != tenant


def test_names_in_any_script_stay_readable(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """Escaping all but ASCII would keep most of the world from finding its tenant in the log."""
    LogObserver().decided(reject(tenant="société-日本"), 0.001)
    assert "tenant=société-日本 " in log.text


def test_a_value_with_spaces_or_quotes_cannot_pass_for_another_field(
    reject: Decide, log: pytest.LogCaptureFixture
) -> None:
    """A tenant named ``x policy=none`` must not be read as a policy by the tool that splits the line."""
    LogObserver().decided(reject(tenant='x policy=none "'), 0.001)
    assert 'tenant="x policy=none \\"" document=' in log.text


def test_a_document_id_as_long_as_a_body_is_cut(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """Ten thousand rejections of a megabyte each are a full disk."""
    LogObserver().decided(reject(document="d" * 1_000_000), 0.001)
    assert len(log.records[0].getMessage()) < 1000


def test_a_logger_that_is_switched_off_gets_nothing(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """The way to silence the guard is the way to silence any logger."""
    log.set_level(logging.CRITICAL, logger="fanout_guard")
    LogObserver().decided(reject(), 0.001)
    assert not log.records


@given(tenant=st.text(), document=st.text(), policy=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_makes_a_second_line(
    tenant: str, document: str, policy: str, reject: Decide, log: pytest.LogCaptureFixture
) -> None:
    """Line breaks come in more kinds than ``\\n``; a reader may take any of them for the next record."""
    log.clear()
    LogObserver().decided(reject(policy, tenant=tenant, document=document), 0.001)
    (record,) = log.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage().splitlines()) == 1
    for name in ("tenant", "document", "policy"):
        assert str(fields(record)[name]).isprintable()
