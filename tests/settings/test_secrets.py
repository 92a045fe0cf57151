"""No secret in an error, a repr, a row or a traceback; no mapping that ends in another error."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fanout_guard.core.policy import CAP_FIELDS
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import PREFIX, Settings
from fanout_guard.settings.effective import effective
from fanout_guard.settings.model import variables

SECRET = "hunter22-SECRET"

_NAMES = st.sampled_from([variable.name for variable in variables()]) | st.builds(
    "{}TENANT__{}__{}".format, st.just(PREFIX), st.text(max_size=5), st.sampled_from([f.upper() for f in CAP_FIELDS])
)
_TEXTS = (
    st.text(max_size=30)
    | st.sampled_from(["", "5", "0.5", "unlimited", "true", "prometheus", "shadow", "json:a", "{}", "POST /a", "5/day"])
    | st.from_regex(r'\{"[a-z ]{0,3}": \{"(max_sites|rate|mode)": ("[a-z0-9/]*"|[0-9.e+-]{1,9}|null|true)\}\}')
)


def _shown(environ: dict[str, str]) -> str:
    """Everything that these settings, or the error instead of them, let anybody see."""
    try:
        settings = Settings.from_env(environ)
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    return repr(settings) + str(settings) + repr(effective(settings, {})) + repr(settings.policies())


@given(st.dictionaries(_NAMES | st.text(max_size=20).map(PREFIX.__add__), _TEXTS))
def test_any_environment_gives_settings_or_a_configuration_error(environ: dict[str, str]) -> None:
    """A start that fails must say why, on a line a problem, whatever a template wrote."""
    problems: tuple[str, ...] = ()
    try:
        Settings.from_env(environ)
    except ConfigurationError as error:
        problems = error.problems
    assert all(problem and problem.isprintable() for problem in problems)


@given(st.dictionaries(_NAMES, _TEXTS), st.text(max_size=8), st.text(max_size=8))
@example({f"{PREFIX}MAX_SITES": "-1"}, "", "")
@example({f"{PREFIX}TENANTS": "[]"}, "/", "@")
@example({}, ":70000/", "?#")
def test_the_password_of_the_address_never_shows(environ: dict[str, str], before: str, after: str) -> None:
    """Least of all beside another variable's problem, and whatever characters it has."""
    url = f"redis://user:{before}{SECRET}{after}@localhost:6379/0"
    assert SECRET not in _shown({**environ, f"{PREFIX}REDIS_URL": url})


@given(st.dictionaries(_NAMES, _TEXTS), st.text(max_size=8))
@example({}, "\udcff")
def test_the_digest_key_never_shows(environ: dict[str, str], after: str) -> None:
    """It is what keeps digests from being guessed."""
    assert SECRET not in _shown({**environ, f"{PREFIX}DIGEST_KEY": SECRET + after})


def test_a_secret_under_a_misspelt_name_never_shows() -> None:
    """The value of an unknown variable is nobody's business."""
    assert SECRET not in _shown({f"{PREFIX}DIGEST": SECRET, f"{PREFIX}TENANT__REDIS_URL": SECRET})


@pytest.mark.parametrize("name", [*(variable.name for variable in variables()), f"{PREFIX}TENANT__acme__RATE"])
@pytest.mark.parametrize(
    "address",
    [
        f"redis://user:{SECRET}@localhost:6379/0",
        f"redis://user:p@ /'{SECRET}@localhost",
        f"unix:///run/redis.sock?db=1&password={SECRET}'\"&ssl=true",
        f"redis://{'u' * 200}:{SECRET}@localhost",
        f'{{"acme": {{"max_sites": ["redis://user:{SECRET}@localhost"]}}}}',
        f'{{"redis://user:{SECRET}@localhost": 5, "acme": {{"redis://:{SECRET}@localhost": 5}}}}',
        f"POST /a, redis://user:{SECRET}@localhost",
    ],
)
def test_the_password_of_an_address_in_a_wrong_variable_never_shows(name: str, address: str) -> None:
    """Two values that changed places are a common mistake, and the log of a failed start is read by many."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({f"{PREFIX}MODE": "x", f"{PREFIX}WORKERS": "0", name: address})
    assert SECRET not in str(caught.value)


def test_a_value_that_is_no_text_is_a_problem() -> None:
    """A mapping built in code may hold a number by mistake."""
    environ: dict[str, str] = {f"{PREFIX}MAX_SITES": 5, f"{PREFIX}TENANT__a__MODE": 5}  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    assert [problem.endswith("int is not accepted; expected text") for problem in caught.value.problems] == [True] * 2
