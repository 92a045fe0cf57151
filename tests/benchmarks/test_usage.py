"""The load that an API has really seen, from a CSV or from two scrapes of its metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.usage import MOST_A_SECOND, Usage, UsageError, from_csv, from_scrapes, read_usage

OVER_CAP = 'fanout_guard_decisions_total{outcome="rejected",policy="circulation"}'


def scrape(*cumulative: int, extra: str = "") -> str:
    bounds = ("100", "300", "500", "+Inf")
    lines = [
        f'fanout_guard_circulation_sites_bucket{{le="{bound}"}} {count}.0'
        for bound, count in zip(bounds, cumulative, strict=True)
    ]
    return "# TYPE fanout_guard_circulation_sites histogram\n" + "\n".join(lines) + "\n" + extra


def test_a_csv_gives_rate_fan_out_and_what_is_over_the_cap() -> None:
    """The report says which part of today's traffic a cap would refuse."""
    rows = "\n".join(f"{second},{500 if second % 10 == 0 else 100}" for second in range(101))
    usage = from_csv(f"time,sites\n\n{rows}\n\n", name="u.csv", cap=300)
    assert (usage.circulations, usage.mean_rate) == (101, 1.0)
    assert usage.share_over_cap == pytest.approx(11 / 101)
    assert from_csv(f"time,sites\n{rows}\n", name="u.csv", cap=500).share_over_cap == 0, "a cap lets itself through"
    assert (usage.p50_sites, usage.p99_sites) == (100, 500)


def test_the_busy_minutes_give_the_rate_to_test_with() -> None:
    """A mean over nights and weekends would test a load that never happens."""
    quiet = [f"{minute * 60},10" for minute in range(100)]
    busy = [f"{6000 + minute * 60 + second},10" for minute in range(20) for second in range(60)]
    usage = from_csv("time,sites\n" + "\n".join([*quiet, *busy, "7260,10"]), name="u.csv", cap=300)
    assert usage.busy_rate == pytest.approx(1.0, rel=0.05)
    assert usage.mean_rate < 0.2


def test_a_burst_in_a_quiet_hour_is_no_busy_minute() -> None:
    """Minutes without any circulation count: the rate to test with is reached in one of twenty."""
    burst = "".join(f"{second},10\n" for second in range(60))
    usage = from_csv(f"time,sites\n{burst}3600,10\n", name="u.csv", cap=300)
    assert usage.busy_rate == usage.mean_rate == pytest.approx(60 / 3600)


def test_iso_times_and_other_columns_are_read() -> None:
    """Exports name their times in ISO 8601 and carry more columns."""
    text = "tenant,time,sites\na,2026-01-01T00:00:00Z,10\nb,2026-01-01T00:00:10+00:00,20\nc,2026-01-01T00:00:20,30\n"
    assert from_csv(text, name="u.csv", cap=300).mean_rate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n", "first row"),
        ("time,b\n1,2\n", "first row"),
        ("a,sites\n1,2\n", "first row"),
        ("time,sites\n1,10\nx,20\n", "row 3, column time: 'x'"),
        ("time,sites\n1,10\n2,-5\n", "row 3, column sites: '-5'"),
        ("time,sites\n1,10\n2,1e3\n", "row 3, column sites: '1e3'"),
        ("time,sites\n1,10\n2,٣\n", "row 3, column sites"),
        (f"time,sites\n1,10\n2,{'9' * 5000}\n", "row 3, column sites"),
        ("time,sites\nnan,10\n2,20\n", "row 2, column time: 'nan'"),
        ("time,sites\n1,10\n2\n", "row 3 has 1 cells"),
        ("time,sites\n1,10\n", "two times or more"),
        ("time,sites\n1,10\n1,10\n", "two times or more"),
        ("time,sites\n", "two times or more"),
        (f"time,sites\n1,{'9' * 200_000}\n", "u.csv: field larger than"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(text: str, problem: str) -> None:
    """Usage files are exports that people edit; they need to know where."""
    with pytest.raises(UsageError, match=problem):
        from_csv(text, name="u.csv", cap=300)


def test_two_scrapes_give_what_happened_between_them() -> None:
    """The API's own metrics are the usage that a load test should start from."""
    others = 'fanout_guard_decision_seconds_bucket{{le="0.1"}} {}.0\n'
    before, after = scrape(5, 5, 5, 5, extra=others.format(5)), scrape(25, 45, 53, 55, extra=others.format(55))
    usage = from_scrapes(before, after, interval_s=100, cap=300)
    assert (usage.circulations, usage.mean_rate) == (50, 0.5)
    assert usage.share_over_cap == pytest.approx(0.2)
    assert usage.p50_sites == pytest.approx(100 + 200 * 5 / 20)
    assert usage.p99_sites == 500, "more than that is all that the histogram says"
    assert usage.exact


def test_a_cap_inside_a_bucket_says_about() -> None:
    """An interpolated share must not look counted."""
    usage = from_scrapes(scrape(0, 0, 0, 0), scrape(10, 20, 30, 30), interval_s=10, cap=400)
    assert usage.share_over_cap == pytest.approx(1 / 6)
    assert usage.describe(400).endswith("about 16.7% of them would be over the cap of 400")


@pytest.mark.parametrize("tenant", ["", ',tenant="a"', ',tenant="a}b"', r',tenant="a\"} b"'])
def test_what_the_guard_itself_found_over_its_cap_is_said(tenant: str) -> None:
    """The histogram interpolates; the guard counted, and a tenant may have any name."""
    labels = f'outcome="rejected",policy="circulation"{tenant}'
    decisions = "fanout_guard_decisions_total{{{labels}}} {count}.0\n"
    shadowed = labels.replace("rejected", "shadowed")

    def counted(over: int, in_shadow: int, others: int) -> str:
        other = "".join(
            decisions.format(labels=f'outcome="{outcome}",policy="{policy}"', count=others)
            for outcome, policy in (("admitted", ""), ("rejected", "document"), ("unreadable", ""))
        )
        over_cap = decisions.format(labels=labels, count=over) + decisions.format(labels=shadowed, count=in_shadow)
        return over_cap + other

    before = scrape(0, 0, 0, 0, extra=counted(2, 1, 50))
    after = scrape(10, 20, 30, 30, extra=counted(6, 4, 90))
    assert "found 7 over its own cap" in from_scrapes(before, after, interval_s=10, cap=300).describe(300)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (scrape(5, 5, 5, 5), scrape(1, 1, 1, 1), "counts less"),
        (scrape(0, 0, 8, 8), scrape(5, 5, 9, 9), "counts less"),
        (scrape(5, 5, 5, 5), scrape(5, 5, 5, 5), "nothing was circulated"),
        (scrape(5, 5, 5, 5).replace('"300"', '"200"'), scrape(9, 9, 9, 9), "not the same one"),
        (scrape(5, 5, 5, 5), "other 2\n", "hold no"),
        ("other 1\n", "other 2\n", "hold no"),
        ("other 1\n", scrape(5, 5, 5, 5), "hold no"),
        (scrape(0, 0, 0, 0), scrape(5, 5, 5, 5).replace("5.0", "NaN"), "not a sample"),
        (scrape(0, 0, 0, 0), scrape(5, 5, 5, 5).replace("5.0", "many"), "not a sample"),
        (scrape(0, 0, 0, 0), scrape(5, 5, 5, 5, extra=f"{OVER_CAP} many\n"), "not a sample"),
    ],
)
def test_scrapes_that_do_not_fit_each_other_are_refused(before: str, after: str, problem: str) -> None:
    """Swapped files, or a restart between them, give nonsense rates."""
    with pytest.raises(UsageError, match=problem):
        from_scrapes(before, after, interval_s=60, cap=300)


@pytest.mark.parametrize("last", ["1e12", "1e300", "1764374400000"])
def test_times_that_are_no_seconds_are_refused(last: str) -> None:
    """A log in milliseconds would take forever, and tell a thousandth of the rate."""
    with pytest.raises(UsageError, match=r"log.csv: the times span \d+ days"):
        from_csv(f"time,sites\n0,5\n{last},5\n", name="log.csv", cap=300)


def test_an_hour_in_milliseconds_is_no_six_weeks() -> None:
    """Its span is short enough for seconds, and the rate to test with would be a thousandth of the real one."""
    rows = "".join(f"{1_764_374_400_000 + 1000 * second},5\n" for second in range(3600))
    with pytest.raises(UsageError, match=r"log.csv: a time is 1764377999000: .* not milliseconds"):
        from_csv(f"time,sites\n{rows}", name="log.csv", cap=300)
    assert from_csv("time,sites\n9999-12-31T23:59:58Z,5\n9999-12-31T23:59:59Z,5\n", name="l", cap=300).mean_rate == 1


def test_files_are_checked_before_they_are_read(tmp_path: Path) -> None:
    """Missing, empty and lone files get a line each."""
    one, empty, table = tmp_path / "one", tmp_path / "empty", tmp_path / "table"
    table.write_text("time,sites\n1,10\n2,20\n")
    one.write_text(scrape(1, 1, 1, 1))
    empty.write_text("\n")
    utf16 = tmp_path / "utf16"
    utf16.write_bytes(table.read_text().encode("utf-16"))
    for paths, interval, problem in (
        ([tmp_path / "none"], None, "cannot be read"),
        ([utf16], None, "cannot be read"),
        ([empty], None, "is empty"),
        ([one], None, "give two"),
        ([one, one], None, "need --interval"),
        ([table], 5.0, "--interval needs two scrapes"),
        ([one, one, one], 5.0, "one CSV or two"),
    ):
        with pytest.raises(UsageError, match=problem):
            read_usage(paths, interval_s=interval, cap=300)


def test_a_csv_of_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    path = tmp_path / "u.csv"
    path.write_bytes(b"\xef\xbb\xbftime,sites\r\n1,10\r\n2,20\r\n")
    assert isinstance(read_usage([path], interval_s=None, cap=300), Usage)


def test_a_rate_that_no_api_sees_is_a_unit_of_time_that_is_wrong(tmp_path: Path) -> None:
    """Times in days, say: all documents of a level would reach somebody's API at once."""
    rows, first, last = tmp_path / "u.csv", tmp_path / "first", tmp_path / "last"
    rows.write_text("time,sites\n" + "".join(f"{number / 86_400},10\n" for number in range(100)))
    with pytest.raises(UsageError, match=f"86,400 circulations a second; at most {MOST_A_SECOND:,} .* its times in"):
        read_usage([rows], interval_s=None, cap=300)
    first.write_text(scrape(0, 0, 0, 0))
    last.write_text(scrape(0, 0, 0, 60_000))
    with pytest.raises(
        UsageError, match=r"60,000 circulations a second; .* is --interval in seconds\? If so, give --rate instead"
    ):
        read_usage([first, last], interval_s=1, cap=300)
    assert read_usage([first, last], interval_s=60, cap=300).busy_rate == MOST_A_SECOND
