"""What is wrong with a command is said in one line, with exit 2, before anything is started or sent."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS, main, parser
from benchmarks.folder import output_folder
from benchmarks.options import BadUsage, cap_from, confirm, host_plan, read_names
from benchmarks.request import environment, notice, read_request
from fanout_guard.stress.results import write_results
from tests.stress.story import pool_of, run_of

BAD = [
    (["sweep", "--rate", "0"], "'0' is not a number above 0"),
    (["sweep", "--rate", "nan"], "'nan' is not a number above 0"),
    (["sweep", "--sites", "100,x"], "'x' is not a whole number"),
    (["sweep", "--sites", "100,100"], "names a level twice"),
    (["sweep", "--sites", ""], "'' is not a whole number"),
    (["sweep", "--sites", "-5"], "'-5' is not a whole number"),
    (["sweep", "--goal", "p95=fast"], "p95"),
    (["sweep", "--goal", "speed=1"], "speed"),
    (["sweep", "--profile", "slow"], "invalid choice"),
    (["sweep", "--usage", "/no/such/file"], "cannot be read"),
    (["sweep", "--host", "api.example.com"], "is not an address"),
    (["sweep", "--host", "http://x/path"], "is not an address"),
    (["sweep", "--host", "http://x/path"], "; its path goes into --path"),
    (["sweep", "--host", "http://x#path"], "is not an address"),
    (["sweep", "--host", "http://x?a=b"], "is not an address"),
    (["sweep", "--host", "http://x:0"], "is not an address"),
    (["sweep", "--sites", "100,100001"], "at most 100000 sites"),
    (["sweep", "--nonsense"], "unrecognized arguments: --nonsense (see python -m benchmarks sweep --help)"),
    (["sweep", "--output", "x"], "did you mean --out?"),
    (["sweep", "--output=x"], "did you mean --out?"),
    (["isolation", "--slot", "3", "x"], "unrecognized"),
    (["sweep", "--history", "/no/such/folder/history.csv"], "--history /no/such/folder/history.csv: "),
    (["analyze", "/no/such/folder"], "results.json"),
    (["compare", "/no/such/folder", "/nor/this"], "results.json"),
    (["isolation", "--flood-sites", "300"], "is not over the cap of 300"),
    (["isolation", "--sites", "301"], "--sites 301 is over the cap of 300: the guard would refuse the bystanders too"),
    ([], "COMMAND"),
]


@pytest.mark.parametrize(("arguments", "problem"), BAD)
def test_a_bad_command_says_what_is_wrong(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2 is for usage alone, so that a pipeline can tell it from a failed cap."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert problem in err
    assert err.startswith("benchmarks: ")
    assert err.count("\n") == 1


def test_a_cap_of_the_environment_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unlimited cap cannot be swept; the variable is named."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_SITES", "unlimited")
    assert main(["sweep"]) == 2
    assert "FANOUT_GUARD_MAX_SITES" in capsys.readouterr().err


def test_a_password_in_the_address_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """It would stand in the results, the report and every message about the target."""
    assert main(["sweep", "--host", "http://user:s3cret@127.0.0.1:9"]) == 2
    err = capsys.readouterr().err
    assert "--header 'Authorization: …'" in err
    assert "s3cret" not in err


def test_a_sweep_says_beforehand_how_long_it_takes(tmp_path: Path) -> None:
    """At the rate of a quiet API a level takes days, and nothing is printed before the first has ended."""
    usage = tmp_path / "usage.csv"
    usage.write_text("time,sites\n0,100\n86400,200\n172800,300\n")
    given = parser().parse_args(["sweep", "--sites", "100,300", "--profile", "quick", "--usage", str(usage)])
    assert "it takes 1,814,405 s or more" in notice(read_request(given), host=None)


@pytest.mark.parametrize("content", ['{"verdict": "pa', "[1]", "{}", '{"stages": [{}]}', '"\udcff"'])
def test_half_a_file_of_an_isolation_test_is_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was killed leaves one; exit 1 with a traceback would say that the cap fails."""
    write_results(tmp_path / "results.json", run_of(pool_of(300), seed=1))
    (tmp_path / "isolation.json").write_bytes(content.encode(errors="surrogateescape"))
    assert main(["analyze", str(tmp_path)]) == 2
    assert f"benchmarks: {tmp_path / 'isolation.json'}: " in capsys.readouterr().err


def test_half_a_file_of_an_isolation_test_is_named_before_a_sweep_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last level it would stand in the place of the verdict, and the report would be missing."""
    (tmp_path / "isolation.json").write_text('{"verdict": "pa')
    begun: list[object] = []
    monkeypatch.setattr("benchmarks.sweep.run_sweep", lambda *_: begun.append(None))
    assert main(["sweep", "--out", str(tmp_path), "--history", str(tmp_path / "history.csv")]) == 2
    assert not begun


def test_runs_that_begin_in_one_second_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of one would replace the other's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "sweep-now")
    assert [str(output_folder(None)) for _ in range(3)] == [
        "results/sweep-now",
        "results/sweep-now-2",
        "results/sweep-now-3",
    ]
    assert output_folder(tmp_path) == output_folder(tmp_path)


def test_a_goal_that_cannot_be_measured_at_a_host_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run would end as inconclusive, with all its documents already on real sites."""
    (tmp_path / "names").write_text("a\nb\n")
    host = ["--host", "http://127.0.0.1:9", "--site-names", str(tmp_path / "names"), "--sites", "1,2"]
    for goal, told in (("cpu=80%", True), ("rss=256MB", True), ("p95=600ms", False)):
        assert main(["sweep", *host, "--goal", goal, "--out", str(tmp_path / "out")]) == 2
        assert ("CPU and memory of another machine are not measured" in capsys.readouterr().err) is told


def test_what_is_asked_for_wins_over_the_profile() -> None:
    """A run is repeated with the options that its notice and its report name."""
    options = ["--profile", "full", "--sweeps", "2", "--documents", "9", "--seed", "5", "--rate", "0.7"]
    asked = read_request(parser().parse_args(["sweep", *options]))
    assert (asked.profile.sweeps, asked.profile.documents, asked.seed, asked.rate) == (2, 9, 5, 0.7)
    assert "at 0.7 documents/s, order shuffled with --seed 5;" in notice(asked, host=None)


def test_only_levels_above_the_cap_are_said_to_be_lifted() -> None:
    """The cap itself is measured as everybody meets it, or it would not be the cap that is judged."""
    given = parser().parse_args(["sweep", "--cap", "300", "--sites", "100,200,300"])
    asked = read_request(given)
    assert "above the cap" not in notice(asked, host=None)
    assert environment(given, asked)["lifted"] == []
    given.sites = (100, 300, 400)
    asked = read_request(given)
    assert "levels above the cap of 300 go out as a tenant whose cap this run lifts" in notice(asked, host=None)
    assert environment(given, asked)["lifted"] == [400]


def test_the_rate_of_usage_is_that_of_its_busy_minutes(tmp_path: Path) -> None:
    """At the mean over quiet hours, a sweep would prove a cap for a load that is never the problem."""
    usage = tmp_path / "usage.csv"
    busy = "".join(f"{3600 + second},2\n" for second in range(600))
    usage.write_text(f"time,sites\n0,2\n{busy}4260,2\n")
    asked = read_request(parser().parse_args(["sweep", "--usage", str(usage)]))
    assert asked.usage is not None
    assert asked.rate == asked.usage.busy_rate == 1.0
    assert asked.usage.mean_rate < 0.2


def test_rate_and_usage_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sources of one number would leave it to chance which counts."""
    usage = tmp_path / "usage.csv"
    usage.write_text("time,sites\n1,2\n2,3\n")
    assert main(["sweep", "--rate", "1", "--usage", str(usage)]) == 2
    assert "leave one out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tenant", "acme"], "--tenant is for an API of your own, and --host is missing"),
        (["--site-names", "/dev/null"], "--site-names is for an API"),
        (["--header", "A: b"], "--header is for an API"),
        (["--yes"], "--yes is for an API"),
        (["--host", "http://127.0.0.1:9", "--workers", "3"], "--workers is of the example API"),
        (["--host", "http://127.0.0.1:9", "--unguarded"], "--unguarded is of the example API"),
        (["--interval", "5"], "--usage, which is missing"),
    ],
)
def test_an_option_of_another_target_is_not_passed_over(
    options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever forgets --host would get a verdict on the example."""
    assert main(["sweep", *options]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ([], "needs --site-names"),
        (["--site-names", "{few}"], "holds 2 names, the largest level needs 3"),
        (["--site-names", "{many}"], "no terminal to ask on"),
        (["--site-names", "{many}", "--yes", "--body", "{}"], "lacks"),
        (["--site-names", "{many}", "--yes", "--body", "@/no/such/file"], "--body"),
        (["--site-names", "{many}", "--yes", "--body", "{nonsense"], "--body"),
        (["--site-names", "{many}", "--yes", "--header", "no colon"], "not of the form"),
        (["--site-names", "{many}", "--yes", "--header", "X-Org: {tenant}"], "no --tenant"),
        (["--site-names", "{many}", "--yes", "--path", "circulate"], "does not start with one /"),
        (["--site-names", "{many}", "--yes", "--path", "//other/circulate"], "does not start with one /"),
        (["--site-names", "{many}", "--yes", "--header", "X Org: a"], "'X Org' is not of the form"),
        (["--site-names", "{many}", "--yes", "--header", "X-Org: a\x7f"], "'X-Org' is not of the form"),
        (["--site-names", "{many}", "--yes", "--tenant", ""], "--tenant '' cannot be sent in a header"),
        (["--site-names", "{many}", "--yes", "--tenant", "€"], "--tenant '€' cannot be sent in a header"),
        (["--site-names", "{many}", "--yes", "--tenant", "a\n"], "--tenant 'a\\n' cannot be sent in a header"),
        (["--site-names", "{many}", "--yes", "--path", "/{tenant}/circulate"], "--path has {tenant}"),
        (["--site-names", "{many}", "--yes", "--path", "/{id}/circulate"], "--path has {id}"),
        (["--site-names", "{many}", "--yes", "--header", "A: 1", "--header", "a: 2"], "'a' is given twice"),
        (["--site-names", "{many}", "--yes", "--tenant", "a", "--header", "x-tenant-id: b"], "name different tenants"),
        (["--site-names", "{many}", "--yes", "--path", "/{document_id}", "--body", '{"to": []}'], 'lacks "{sites}"'),
    ],
)
def test_nothing_is_sent_to_a_host_until_all_is_said(
    more: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Documents on real sites cannot be taken back."""
    (tmp_path / "few").write_text("a\nb\n")
    (tmp_path / "many").write_text("a\nb\nc\n")
    files = {"few": str(tmp_path / "few"), "many": str(tmp_path / "many")}
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    chosen = [text.replace("{few}", files["few"]).replace("{many}", files["many"]) for text in more]
    host = ["sweep", "--host", "http://127.0.0.1:9", "--sites", "1,2,3", "--out", str(tmp_path / "out")]
    assert main([*host, *chosen]) == 2
    assert problem in capsys.readouterr().err
    assert (tmp_path / "out").exists() is ("no terminal" in problem), "a folder that no run will fill"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_question_is_asked_before_a_progress_bar_draws_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal the bar took "[y/N]" for markup, and went on while it waited for the answer."""
    (tmp_path / "names").write_text("a\nb\n")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    monkeypatch.setattr("benchmarks.sweep.progress", lambda: pytest.fail("a bar is drawn"))
    host = ["--host", "http://127.0.0.1:9", "--site-names", str(tmp_path / "names"), "--sites", "1,2"]
    assert main(["sweep", *host, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "Go on? [y/N] " in err
    assert "nothing was sent" in err


def test_the_question_counts_every_document_that_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A soak sends ten times as many at the cap: 316 on real sites, where the question spoke of 64."""
    (tmp_path / "names").write_text("a\nb\n")
    host = ["--host", "http://127.0.0.1:9", "--site-names", str(tmp_path / "names"), "--sites", "1,2", "--cap", "2"]
    assert main(["sweep", *host, "--profile", "soak", "--out", str(tmp_path / "out")]) == 2
    assert "316 documents or more go to up to 2 real sites of http://127.0.0.1:9 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "holds no site names"), (b"a\n\na\n", "line 3 repeats 'a' of line 1"), (b"\xff\n", "cannot be read")],
)
def test_a_file_of_names_is_checked_line_by_line(content: bytes, problem: str, tmp_path: Path) -> None:
    """A site named twice would get each document twice."""
    path = tmp_path / "names"
    path.write_bytes(content)
    with pytest.raises(BadUsage, match=problem):
        read_names(path)


@pytest.mark.parametrize("answer", ["y", "Y", "yes", " YES "])
def test_a_yes_is_a_yes_however_it_is_written(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has typed one waits for the run, and would not look for what was wrong with it."""
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    confirm(parser().parse_args(["sweep"]), "64 documents go out.")


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yes?\n"])
def test_nothing_but_a_yes_is_one(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents on real sites cannot be taken back."""
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(BadUsage, match="nothing was sent"):
        confirm(parser().parse_args(["sweep"]), "64 documents go out.")


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ([], {}),
        (["--tenant", "acme"], {"X-Tenant-ID": "{tenant}"}),
        (["--tenant", "acme", "--header", "A: b"], {"A": "b", "X-Tenant-ID": "{tenant}"}),
        (["--tenant", "acme", "--header", "X-Org: o/{tenant}"], {"X-Org": "o/{tenant}"}),
        (["--tenant", "acme", "--header", "x-tenant-id: acme"], {"x-tenant-id": "acme"}),
    ],
)
def test_the_tenant_is_sent_once(options: list[str], headers: dict[str, str], tmp_path: Path) -> None:
    """In the header that is usual for it, unless another one has it."""
    (tmp_path / "names").write_text("a\n")
    host = ["--host", "http://127.0.0.1:9/", "--site-names", str(tmp_path / "names")]
    given = parser().parse_args(["sweep", *host, *options])
    assert given.host == "http://127.0.0.1:9", "the path comes behind it"
    assert host_plan(given, run="r", largest=1).headers == headers


@pytest.mark.parametrize(
    ("configured", "cap"), [({}, 300), ({"FANOUT_GUARD_MAX_SITES": ""}, 300), ({"FANOUT_GUARD_MAX_SITES": "7"}, 7)]
)
def test_the_cap_is_the_one_that_is_configured(configured: dict[str, str], cap: int) -> None:
    """As the guard reads it: what is empty is not set."""
    assert cap_from(parser().parse_args(["sweep"]), configured) == cap
    assert cap_from(parser().parse_args(["sweep", "--cap", "9"]), configured) == 9


def test_levels_are_in_order_however_they_are_given() -> None:
    """The report reads from the smallest to the largest."""
    assert parser().parse_args(["sweep", "--sites", "300, 100,200"]).sites == (100, 200, 300)


def test_an_empty_line_is_no_site(tmp_path: Path) -> None:
    """It would be published to as a site without a name."""
    path = tmp_path / "names"
    path.write_text("a\n\n  \n b \n")
    assert read_names(path) == ["a", "b"]


@pytest.mark.parametrize("command", ["", *(name.partition(".")[0] for name in COMMANDS)])
def test_a_help_says_what_the_command_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In words for a terminal: a docstring's marks are for another reader."""
    with pytest.raises(SystemExit):
        parser().parse_args([*command.split(), "--help"])
    _, description, *_ = capsys.readouterr().out.split("\n\n")
    assert description.endswith(".")
    assert "`" not in description
