"""``fanout-guard verify``: configured caps against results, with an exit status that a pipeline can act on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanout_guard.cli import main
from fanout_guard.cli.verify import configured_caps
from fanout_guard.core.policy import Caps
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.settings import Settings
from tests.cli.servers import with_counters
from tests.ports import free_port

STORY = "sites,p95_ms\n100,500\n200,500\n300,500\n400,620\n500,740\n"


@pytest.fixture
def story(tmp_path: Path) -> str:
    """A table with a knee at 300."""
    path = tmp_path / "story.csv"
    path.write_text(STORY)
    return str(path)


def run_file(folder: Path, latencies: dict[int, float], **members: Any) -> Path:
    levels = [
        {
            "sites": sites,
            "documents": 20,
            "latencies_ms": [latency + i % 5 for i in range(20)],
            "errors": 0,
        }
        for sites, latency in latencies.items()
    ]
    path = folder / "results.json"
    path.write_text(json.dumps({"schema": "fanout-guard-stress/1", "levels": levels} | members))
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["verify", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    return code, json.loads(out)


def test_the_default_cap_of_the_story_is_proven(story: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No variable set: 300 sites, and a knee at 300."""
    code, document = answer(capsys, story)
    assert (code, document["verdict"], document["above"]) == (0, "pass", [])
    assert document["recommended_cap"] == 300
    assert document["knee"]["sites"] == 300


def test_caps_that_are_too_high_are_named(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline that raised one tenant's cap must say which one, and what would do."""
    monkeypatch.setenv("FANOUT_GUARD_TENANTS", '{"acme": {"max_sites": 500}, "small": {"max_sites": 20}}')
    code, document = answer(capsys, story)
    assert (code, document["verdict"]) == (1, "fail")
    assert document["above"] == [{"tenant": "acme", "cap": 500}]
    assert document["recommended_cap"] <= document["knee"]["sites"]
    assert main(["verify", story]) == 1
    assert "the cap of acme is 500: use 300" in capsys.readouterr().out


def test_the_default_cap_is_called_by_the_name_of_the_defaults(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same name that `caps set` takes, so that the answer can be acted on."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_SITES", "450")
    assert answer(capsys, story)[1]["above"] == [{"tenant": "*", "cap": 450}]
    assert main(["verify", story]) == 1
    assert "the default cap is 450: use 300" in capsys.readouterr().out


def test_an_unlimited_cap_cannot_be_told(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No test is large enough to prove it."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT__acme__MAX_SITES", "unlimited")
    code, document = answer(capsys, story)
    assert (code, document["verdict"]) == (3, "inconclusive")
    assert "acme" in document["reason"]


def test_samples_are_judged_and_a_stored_verdict_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that says of itself that all is well proves nothing."""
    rising = {100: 500.0, 200: 500.0, 300: 700.0, 400: 900.0, 500: 1100.0}
    path = run_file(
        tmp_path,
        rising,
        verdict="pass",
        knee={"sites": 480, "low": 470, "high": 490},
        recommended_cap=480,
        rise_at_cap=None,
    )
    code, document = answer(capsys, str(path))
    assert code == 1
    assert document["knee"]["sites"] < 250
    assert document["recommended_cap"] <= 200


def test_without_a_knee_the_reason_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four levels that bend cleanly have no knee figure, and nothing said so."""
    path = tmp_path / "four.csv"
    path.write_text("sites,p95_ms\n100,500\n200,500\n300,500\n400,620\n")
    reason = "a knee takes 5 levels that can be judged, there are 4"
    code, document = answer(capsys, str(path))
    assert (code, document["knee"], document["no_knee"]) == (0, None, reason)
    assert main(["verify", str(path)]) == 0
    assert f"no knee: {reason}" in capsys.readouterr().out


def test_only_levels_that_can_be_judged_count_for_a_knee(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a sweep of seven levels, "there are 4" looks like a mistake."""
    path = run_file(tmp_path, dict.fromkeys(range(100, 800, 100), 500.0))
    results = json.loads(path.read_text())
    for level in results["levels"][4:]:
        level["latencies_ms"] = level["latencies_ms"][:2]
    path.write_text(json.dumps(results))
    assert answer(capsys, str(path))[1]["no_knee"] == "a knee takes 5 levels that can be judged, there are 4"


def test_the_column_that_decided_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flat median must not hide a 95th percentile that collapses."""
    path = tmp_path / "both.csv"
    rows = [f"{sites},{p95 + d},500" for sites, p95 in ((100, 550), (200, 550), (300, 5000)) for d in (0, 5, 10)]
    path.write_text("\n".join(["sites,p95_ms,p50_ms", *rows]))
    code, document = answer(capsys, str(path))
    assert (code, document["column"], document["recommended_cap"]) == (1, "p95_ms", 200)
    assert document["reason"].startswith("p95_ms: ")
    bending = [f"{s},{900 + 2 * max(s - 300, 0)},{500 + 2 * max(s - 300, 0)}" for s in (100, 200, 300, 400, 500)]
    path.write_text("\n".join(["sites,p95_ms,p50_ms", *bending]))
    assert main(["verify", str(path)]) == 0
    assert "latency (p50_ms) rises from 300 sites on" in capsys.readouterr().out


def test_the_folder_of_a_run_stands_for_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep prints the folder that it wrote to."""
    run_file(tmp_path, dict.fromkeys((100, 200, 300, 400, 500), 500.0))
    assert answer(capsys, str(tmp_path))[0] == 0


def test_a_results_file_is_known_by_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Artifacts of a pipeline are often renamed."""
    path = run_file(tmp_path, dict.fromkeys((100, 200, 300), 500.0)).rename(tmp_path / "artifact")
    assert answer(capsys, str(path))[0] == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--p95-ms", "600"], 0),
        (["--p95-ms", "499.5"], 1),
        (["--error-rate", "0.02"], 0),
        (["--error-rate", "0.005"], 1),
        (["--cpu-percent", "60"], 0),
        (["--cpu-percent", "40"], 1),
        (["--memory-mb", "256"], 0),
        (["--memory-mb", "100"], 1),
    ],
)
def test_goals_are_judged_on_the_columns_of_a_table(
    options: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flat latency is not all that is asked."""
    path = tmp_path / "k6.csv"
    rows = [f"{sites},500,490,0.01,50,200\r\n" for sites in (100, 200, 300, 400)]
    path.write_text("sites,p95_ms,p50_ms,error_rate,cpu_percent,memory_mb\r\n" + "".join(rows), encoding="utf-8-sig")
    assert answer(capsys, str(path), *options)[0] == code


def test_the_goals_of_the_run_hold_unless_others_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verifying later must not forget what the run was held to."""
    path = run_file(tmp_path, dict.fromkeys((100, 200, 300), 500.0), goals={"p95_ms": 400})
    assert answer(capsys, str(path))[0] == 1
    assert answer(capsys, str(path), "--p95-ms", "600")[0] == 0


@pytest.mark.parametrize("content", ["", "sites,p95_ms\n", "x", "{}", "[1]", "sites,p95_ms\n1,nan\n", "\x00"])
def test_unreadable_results_are_one_line_and_exit_status_2(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file is neither a no nor a doubt."""
    path = tmp_path / "results"
    path.write_text(content)
    assert main(["verify", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert str(path) in err


@pytest.mark.parametrize("name", ["missing.csv", "folder"])
def test_a_file_that_cannot_be_read_is_exit_status_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for a file that is not there."""
    (tmp_path / "folder").mkdir()
    assert main(["verify", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bad_cell_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever made the table must find it."""
    path = tmp_path / "t.csv"
    path.write_text("sites,p95_ms\n100,500\n200,fast\n")
    assert main(["verify", str(path)]) == 2
    assert "row 2 (line 3), column p95_ms: 'fast'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--p95-ms", "--error-rate", "--cpu-percent", "--memory-mb"])
@pytest.mark.parametrize("value", ["", "x", "nan", "-1", "1e3", "inf"])
def test_a_bad_goal_is_exit_status_2(option: str, value: str, story: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A goal that is not understood must not count as held."""
    assert main(["verify", story, f"{option}={value}"]) == 2
    assert option in capsys.readouterr().err


def test_an_error_rate_is_a_fraction(story: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the table: 5 would be 500 %."""
    assert main(["verify", story, "--error-rate", "5"]) == 2
    assert "--error-rate: '5' is not accepted; expected a fraction from 0 to 1" in capsys.readouterr().err


def test_a_bad_configuration_is_exit_status_2(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Caps that cannot be read cannot be verified."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_SITES", "many")
    assert main(["verify", story]) == 2
    assert "FANOUT_GUARD_MAX_SITES" in capsys.readouterr().err


def test_without_numpy_the_command_says_what_to_install(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The judgement is an extra; a traceback would not say which."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert main(["verify", story]) == 2
    assert "fanout-guard[stress]" in capsys.readouterr().err


def test_the_command_line_loads_no_numpy_for_other_commands() -> None:
    """Neither does the judgement ever load Locust or gevent, which would patch the whole process."""
    code = (
        "import sys, fanout_guard, fanout_guard.cli, fanout_guard.cli.verify as v\n"
        "assert 'numpy' not in sys.modules\n"
        "import fanout_guard.stress.proof\n"
        "assert not {'locust', 'gevent', 'prometheus_client'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_overrides_change_the_caps_that_are_verified() -> None:
    """An override is the nearest cap, also over the defaults."""
    settings = Settings.from_env(
        {"FANOUT_GUARD_TENANTS": '{"acme": {"max_sites": 500}, "rated": {"rate": "5/minute"}}'}
    )
    assert configured_caps(settings, {}) == {"*": 300, "acme": 500}
    overrides = {"*": Caps(max_sites=250), "acme": Caps(mode="shadow"), "zenith": Caps(max_sites="unlimited")}
    assert configured_caps(settings, overrides) == {"*": 250, "acme": 500, "zenith": None}


def test_overrides_on_the_server_are_verified_too(story: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A cap raised by hand at night is the one that nobody finds in the configuration."""

    async def override(counters: RedisCounters) -> None:
        store = OverrideStore(counters)
        await store.set("acme", {"max_sites": 480, "mode": "shadow"}, by="night")
        await store.set("*", {"max_sites": 299}, by="night")

    with_counters(url, override)
    code, document = answer(capsys, story)
    assert (code, document["above"]) == (1, [{"tenant": "acme", "cap": 480}])


def test_a_server_out_of_reach_leaves_the_overrides_unknown(
    story: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some cap may have been raised there; a pass would be a guess."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    assert main(["verify", story]) == 3
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "says"), [("/dev/zero", "longer than 256 MB"), (".", "results.json: No such file"), ("a\0b", "null byte")]
)
def test_a_path_that_holds_no_results_is_one_line(
    path: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An endless file must not take the machine's memory; of a folder, the file that it lacks is named."""
    monkeypatch.chdir(tmp_path)
    assert main(["verify", path]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
