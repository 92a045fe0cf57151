"""Names that some reader takes for a configured one."""

from __future__ import annotations

import time

import pytest

from fanout_guard.core.lookalike import _CACHED, _LETTERS, Lookalikes


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Target_Sites",
            "TARGET_SITES",
            "targetSites",
            "target-sites",
            "target sites",
            "-target_sites",
            "__targetsites",
        ),
        *("target_\u017fites", "target_site\u017f", "\uff54arget_sites", "target_s\u0131tes", "target_s\u0130tes"),
        *(
            "target_sites\0",
            "target_sites\0x",
            "target\0_sites",
            "\0target_sites",
            "target_sites\x7f",
            "\ttarget_sites",
        ),
        *("\u200btarget_sites", "target\u00ad_sites", "\ufefftarget_sites", "target_sites\ud800", "ta\u0301rget_sites"),
        *(" target_sites", "target_sites\u00a0", "target_sites\u2028", "t_a_r_g_e_t_s_i_t_e_s"),
    ],
)
def test_a_name_that_a_reader_takes_for_another_is_a_lookalike(name: str) -> None:
    """Readers fold case, normalise, drop, trim, or stop at NUL."""
    assert name in Lookalikes(["target_sites", "x"])


@pytest.mark.parametrize(
    "name", ["", "target_site", "target_sites2", "sites", "target", "xx", "\u0442arget_sites", "目标", "é"]
)
def test_other_names_are_no_lookalikes(name: str) -> None:
    """A refusal of what nobody confuses would turn good clients away."""
    assert name not in Lookalikes(["target_sites", "x"])


def test_the_long_s_and_the_kelvin_sign_are_letters() -> None:
    """Go compares member names by simple folding, in which these two are an s and a k."""
    assert "\u212aey\u017f" in Lookalikes(["keys"])


@pytest.mark.parametrize(
    "name",
    [
        *("t" + "\u200b" * 300_000, "\u0301" * 300_000, "target_sites" * 30_000, "é" * 300_000),
        *("\u200b" + "_" * 300_000, "t\uff3f" + "-" * 300_000),
    ],
)
def test_a_long_name_is_compared_in_linear_time(name: str) -> None:
    """Normalising a long run of marks is quadratic in the standard library, and so is reading a growing text again."""
    started = time.process_time()
    assert name not in Lookalikes(["target_sites"])
    assert time.process_time() - started < 5


def test_what_is_remembered_of_letters_is_bounded() -> None:
    """A client may send every character there is."""
    lookalikes = Lookalikes(["x"])
    assert not any(chr(code) in lookalikes for code in range(0x4E00, 0x4E00 + 2 * _CACHED))
    assert len(_LETTERS) <= _CACHED
