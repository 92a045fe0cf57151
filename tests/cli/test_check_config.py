"""``fanout-guard check-config``: what would run, or all that is wrong."""

from __future__ import annotations

import json

import pytest

from fanout_guard import ConfigurationError, Settings
from fanout_guard.cli import main


def test_the_defaults_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The command answers what an application without any variable would run with."""
    assert main(["check-config"]) == 0
    out, err = capsys.readouterr()
    assert "FANOUT_GUARD_MAX_SITES" in out
    assert out.count("300") >= 3
    assert err == ""


def test_every_problem_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment pipeline shows stderr and looks at the exit status."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_SITES", "-1")
    monkeypatch.setenv("FANOUT_GUARD_LIMTI", "5")
    assert main(["check-config"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["FANOUT_GUARD_MAX_SITES", "FANOUT_GUARD_LIMTI"]


def test_json_lists_problems_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read what people read."""
    monkeypatch.setenv("FANOUT_GUARD_MODE", "on")
    assert main(["check-config", "--json"]) == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["ok"] is False
    assert err == f"fanout-guard: {document['problems'][0]}\n"


def test_json_holds_values_sources_and_tenants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The document answers "which cap holds for whom, and who set it"."""
    monkeypatch.setenv(
        "FANOUT_GUARD_TENANTS", '{"acme": {"max_sites": 500, "rate": "5/minute", "document_window": 1.5}}'
    )
    assert main(["check-config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["FANOUT_GUARD_MAX_SITES"] == {"value": 300, "source": "default"}
    assert document["settings"]["FANOUT_GUARD_TENANTS"]["source"] == "environment"
    assert document["tenants"]["*"]["max_sites"] == 300
    assert document["tenants"]["acme"] == {
        "max_sites": 500,
        "document_max_sites": 500,
        "document_window": 1.5,
        "rate": "5/60 seconds",
        "max_inflight": "unlimited",
        "mode": "enforce",
    }


def test_a_rate_that_is_off_is_spelled_as_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    """``caps set`` takes what is printed, and an empty cell beside 'unlimited' looks like one that is missing."""
    main(["check-config", "--json"])
    assert json.loads(capsys.readouterr().out)["tenants"]["*"]["rate"] == "unlimited"
    with pytest.raises(ConfigurationError, match="or 'unlimited'"):
        Settings.from_env({"FANOUT_GUARD_RATE": "off"})


def test_the_tenants_that_are_printed_are_tenants_that_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one deployment prints can be pasted into the next one's TENANTS."""
    given = (
        '{"acme": {"max_sites": "unlimited", "rate": "5/minute; 7/day", "mode": "shadow"}, "beta": {"max_inflight": 0}}'
    )
    monkeypatch.setenv("FANOUT_GUARD_TENANTS", given)
    main(["check-config", "--json"])
    tenants = json.loads(capsys.readouterr().out)["tenants"]
    del tenants["*"]
    pasted = Settings.from_env({"FANOUT_GUARD_TENANTS": json.dumps(tenants)}).policies()
    original = Settings.from_env().policies()
    assert [pasted.static(tenant) for tenant in ("acme", "beta")] == [original.static(t) for t in ("acme", "beta")]


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("mode", ["enforce", "on"])
def test_secrets_are_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], mode: str
) -> None:
    """Its output goes into tickets."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", "rediss://user:hunter22@redis.internal:6379/1?password=hunter22")
    monkeypatch.setenv("FANOUT_GUARD_DIGEST_KEY", "hunter22")
    monkeypatch.setenv("FANOUT_GUARD_MODE", mode)
    main(["check-config", *options])
    out, err = capsys.readouterr()
    assert "hunter22" not in out + err
    assert mode == "on" or "rediss://***@redis.internal:6379/1" in out
