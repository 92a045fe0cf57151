"""Every variable: what it accepts, what it refuses, what empty means. Each fixture has one defect."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fanout_guard.core.model import Mode
from fanout_guard.core.values import shown
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import PREFIX, Settings
from fanout_guard.settings.model import variables
from tests.configured import problems
from tests.configured import settings as read

ACCEPTED: list[tuple[str, str, Any]] = [
    ("MODE", "shadow", Mode.SHADOW),
    ("MODE", " off ", Mode.OFF),
    ("ROUTES", "POST /circulate-document", "POST /circulate-document"),
    ("ROUTES", "POST /a,PUT  /t/{tenant}/b ", "POST /a, PUT /t/{tenant}/b"),
    ("ROUTES", "POST /", "POST /"),
    ("ROUTES", "POST /größe/", "POST /größe/"),
    ("TENANT", "header:X-Tenant", "header:X-Tenant"),
    ("TENANT", "query:tenant", "query:tenant"),
    ("TENANT", "json:meta.tenant", "json:meta.tenant"),
    ("TENANT", "scope:user.tenant_id", "scope:user.tenant_id"),
    ("DEFAULT_TENANT", "Acme-EU.west", "Acme-EU.west"),
    ("DEFAULT_TENANT", "größe", "größe"),
    ("DEFAULT_TENANT", "t" * 256, "t" * 256),
    ("UNKNOWN_TENANTS", "reject", "reject"),
    ("DOCUMENT", "json:doc.id", "json:doc.id"),
    ("SITES", "json:target_sites|json:sites | query:site", "json:target_sites|json:sites|query:site"),
    ("COUNT", "distinct", "distinct"),
    ("MAX_SITES", "0", 0),
    ("MAX_SITES", " 300 ", 300),
    ("MAX_SITES", "300\r", 300),
    ("MAX_SITES", "unlimited", "unlimited"),
    ("DOCUMENT_MAX_SITES", "1000000000", 10**9),
    ("DOCUMENT_WINDOW", "60", 60),
    ("DOCUMENT_WINDOW", "1.5", 1.5),
    ("DOCUMENT_WINDOW", "31622400", 366 * 86_400),
    ("RATE", "6000/minute; 100000/day", "6000/minute; 100000/day"),
    ("MAX_INFLIGHT", "1000000000", 10**9),
    ("GLOBAL_MAX_INFLIGHT", "unlimited", "unlimited"),
    ("LEASE_TTL", "1", 1),
    ("REDIS_URL", "redis://u:p@h:6379/0", "redis://u:p@h:6379/0"),
    ("REDIS_TIMEOUT", "0.001", 0.001),
    ("KEY_PREFIX", "prod:fanout", "prod:fanout"),
    ("ON_OUTAGE", "closed", "closed"),
    ("WORKERS", "8", 8),
    ("DIGEST_KEY", " any text, exactly\n", " any text, exactly\n"),
    ("REFUND_ON", "3xx, 4XX ,503", "3xx, 4XX ,503"),
    ("IDEMPOTENCY_HEADER", "Idempotency-Key", "Idempotency-Key"),
    ("MAX_BODY_BYTES", "1073741824", 1 << 30),
    ("REJECT_STATUS", "429", 429),
    ("HEADERS", "true", True),
    ("HEADERS", "1", True),
    ("HEADERS", "yes", True),
    ("HEADERS", "false", False),
    ("HEADERS", "0", False),
    ("HEADERS", "no", False),
    ("HEADERS", "FALSE ", False),
    ("METRICS", "prometheus", "prometheus"),
    ("METRICS_TENANTS", "configured", "configured"),
    ("OVERRIDES_TTL", "0.5", 0.5),
]

NUMBERS = ["3_00", "+300", "-1", "-5", "300.0", "٣٠٠", "３００", "0x12c", "1e3", "'300'", '"300"', "300 # cap", "3 00"]
NUMBERS += ["nan", "inf", "1e400", "sixty", "null", "None", "1000000001", "9" * 5000, " ", "300;", "\x00"]
SECONDS = [
    "0",
    "-1",
    "+1",
    ".5",
    "5.",
    "1_0",
    "1e3",
    "nan",
    "NaN",
    "inf",
    "1e400",
    "sixty",
    "60s",
    "٦٠",
    "99999999",
    " ",
]
WORDS = ["", "on", "Enforce", "true", "null", " ", "enforce,shadow"]

REFUSED: dict[str, list[str]] = {
    "MODE": WORDS[1:],
    "ROUTES": [
        "/circulate-document",
        "POST",
        "POST circulate",
        "post /circulate",
        "POST /a,",
        "POST /a, POST /a",
        "POST /{x}, POST /{y}",
        "POST /{id:int}",
        "POST /pre{id}",
        "POST /{}",
        "POST /{a}/{a}",
        "POST /a?b=c",
        "POST /a b",
        "HEAD /a",
        "OPTIONS /a",
        "*",
        " ",
    ],
    "TENANT": [
        "X-Tenant-ID",
        "header:",
        "header:X Tenant",
        "header:X@Tenant",
        "Header:X",
        "cookie:t",
        "json:a..b",
        "json:.a",
        "path:1",
        "json:\udcff",
        " ",
    ],
    "DEFAULT_TENANT": [" default", "default ", "\t", "t" * 257, "ü" * 129, "*", "\udcff"],
    "UNKNOWN_TENANTS": ["deny", "Own", " "],
    "DOCUMENT": ["document_id", "json:", "json: id", "none", " "],
    "SITES": [
        "target_sites",
        "json:a|",
        "|json:a",
        "json:a|json:a",
        "header:X-Sites",
        "path:site",
        "json:a,json:b",
        " ",
    ],
    "COUNT": ["unique", "Distinct", " "],
    "MAX_SITES": NUMBERS,
    "DOCUMENT_MAX_SITES": NUMBERS,
    "DOCUMENT_WINDOW": [*SECONDS, "0.999", "31622401"],
    "RATE": ["6000", "6000/minutely", "often", "5/minute; 6/minute", "1/0 day", "1/400 days", "+1/minute", " ", "null"],
    "MAX_INFLIGHT": NUMBERS,
    "GLOBAL_MAX_INFLIGHT": NUMBERS,
    "LEASE_TTL": SECONDS,
    "TENANTS": ["acme=5,beta=6", "{'acme': {}}", "null", "5", '"acme"', " ", "[]"],
    "TENANTS_FILE": ["/nowhere/tenants.json", "/dev/null", "/", "a\x00b", " "],
    "REDIS_URL": ["localhost:6379", "http://h", "redis://", "redis://h:port", "redis://h/db", "memcached://h", " "],
    "REDIS_TIMEOUT": [*SECONDS, "0.0001", "0.0"],
    "KEY_PREFIX": ["a b", "{tag}", "größe", "k" * 65, "a*", " ", "a\n b"],
    "ON_OUTAGE": ["allow", "Open", " "],
    "WORKERS": ["0", "-1", "1.5", "auto", "100001", " "],
    "DIGEST_KEY": ["\udcff"],
    "REFUND_ON": ["3xx,", "xxx", "6xx", "1xx", "199", "600", "4x", "3xx;4xx", "500-599", "４xx", "none", " "],
    "IDEMPOTENCY_HEADER": ["Idempotency Key", "a:b", "größe", " "],
    "MAX_BODY_BYTES": ["0", "1MB", "1073741825", "-1", " "],
    "REJECT_STATUS": ["200", "404", "500", "422.0", "+422", "４２２", " "],
    "HEADERS": ["disabled", "on", "off", "2", "t", "null", " "],
    "METRICS": ["statsd", "Prometheus", "true", " "],
    "METRICS_TENANTS": ["all", "on", " "],
    "OVERRIDES_TTL": SECONDS,
}


@pytest.mark.parametrize(("name", "text", "value"), ACCEPTED)
def test_a_value_is_read(name: str, text: str, value: Any) -> None:
    """What the documentation accepts must work as it stands there."""
    assert getattr(read(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_a_defect_stops_the_start_and_names_the_variable(name: str, text: str) -> None:
    """A value that is guessed at, clamped or ignored is found under load, not at the start."""
    (problem,) = problems(**{name: text})
    assert problem.startswith(f"{PREFIX}{name}: ")
    assert "expected" in problem
    assert "\n" not in problem


def test_every_variable_has_its_defects_tested() -> None:
    """A new variable must come with its own."""
    names = {variable.name.removeprefix(PREFIX) for variable in variables()}
    assert set(REFUSED) == names - {"TENANT__<ID>__<FIELD>"}


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in ("DEFAULT_TENANT", "DOCUMENT", "REFUND_ON")])
def test_empty_is_unset(name: str) -> None:
    """A template that filled in nothing must give the default, never "off" or a crash."""
    assert read(**{name: ""}) == Settings()


@pytest.mark.parametrize("name", ["DEFAULT_TENANT", "DOCUMENT", "REFUND_ON"])
def test_empty_means_what_its_row_says(name: str) -> None:
    """These three have a meaning of their own for empty."""
    assert getattr(read(**{name: ""}), name.lower()) == ""


def test_a_variable_shows_the_value_and_what_is_accepted() -> None:
    """An error that sends its reader to the source code is half an error."""
    assert problems(MAX_SITES="3_00") == [
        "FANOUT_GUARD_MAX_SITES: '3_00' is not accepted; expected a whole number from 0 to 1000000000 or 'unlimited'"
    ]


@pytest.mark.parametrize(
    ("name", "words"), [("MODE", "'enforce', 'shadow' or 'off'"), ("ON_OUTAGE", "'local', 'open' or 'closed'")]
)
def test_words_to_choose_from_are_told_as_a_sentence_has_them(name: str, words: str) -> None:
    """The same text stands in errors and in the reference, for every choice alike."""
    assert problems(**{name: "perhaps"})[0].endswith(f"; expected {words}")


def test_a_long_value_is_shown_in_part() -> None:
    """A megabyte in a variable is no reason for a megabyte in the log."""
    for name in ("TENANTS", "ROUTES", "TENANT", "REFUND_ON"):
        (problem,) = problems(**{name: "x" * 1_000_000})
        assert len(problem) < 500


@pytest.mark.parametrize("text", ["://" * 300_000, "@" + "://" * 300_000, "&password=" + "&password=&" * 100_000])
def test_a_long_value_is_shown_in_linear_time(text: str) -> None:
    """Neither a file in the place of a value nor what stands in an override may hold up whoever reads it."""
    began = time.process_time()
    assert shown(text).endswith("…")
    assert time.process_time() - began < 5


def test_every_problem_is_reported_together() -> None:
    """Fixing a deployment one restart per mistake costs an afternoon."""
    found = problems(MODE="on", MAX_SITES="-1", TENANTS="[]", LIMTI="5", TENANT__acme__RATE="often")
    assert [problem.split(":")[0].removeprefix(PREFIX) for problem in found] == [
        "MODE",
        "MAX_SITES",
        "TENANTS",
        "LIMTI",
        "TENANT__acme__RATE",
    ]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MAXSITES", "MAX_SITES"),
        ("MAX_SITE", "MAX_SITES"),
        ("max_sites", "MAX_SITES"),
        ("DOCUMENT_MAXSITES", "DOCUMENT_MAX_SITES"),
        ("REDIS_URI", "REDIS_URL"),
        ("ON_OUTTAGE", "ON_OUTAGE"),
        ("TENANT__acme__MAXSITES", "TENANT__acme__MAX_SITES"),
        ("TENANT__acme__max_sites", "TENANT__acme__MAX_SITES"),
        ("TENANT__a__b__MODES", "TENANT__a__b__MODE"),
        ("TENANT_acme__MAX_SITES", "TENANT__<ID>__<FIELD>"),
        ("TENANT_acme_MAX_SITES", "TENANT__<ID>__<FIELD>"),
        ("TENANTS_acme_RATE", "TENANT__<ID>__<FIELD>"),
        ("TENANT____MAX_SITES", "TENANT__<ID>__<FIELD>"),
        ("TENANT__MAX_SITES", "TENANT__<ID>__<FIELD>"),
        ("TENANT__<ID>__<FIELD>", "TENANT__<ID>__"),
        ("", ""),
    ],
)
def test_an_unknown_name_is_a_problem_that_names_the_nearest(name: str, nearest: str) -> None:
    """A misspelt cap that is ignored is a cap that does not exist."""
    (problem,) = problems(**{name: "5"})
    assert problem.startswith(f"{PREFIX}{name}: no such variable; the nearest is {PREFIX}{nearest}")


def test_the_prefix_in_another_case_is_no_way_around() -> None:
    """Names are exact on the systems that servers run on; a lower-case one would be ignored in silence."""
    with pytest.raises(ConfigurationError, match="fanout_guard_max_sites: no such variable"):
        Settings.from_env({"fanout_guard_max_sites": "5"})


def test_variables_that_kubernetes_injects_are_explained() -> None:
    """A Service called fanout-guard would otherwise stop the start with a riddle."""
    (problem,) = problems(SERVICE_HOST="10.0.0.1")
    assert "enableServiceLinks" in problem


def test_an_unknown_variables_value_is_not_shown() -> None:
    """It may be a secret under a misspelt name."""
    (problem,) = problems(REDIS_PASSWORD="hunter22")
    assert "hunter22" not in problem


def test_other_variables_are_not_looked_at() -> None:
    """The environment belongs to the whole process."""
    assert Settings.from_env({"PATH": "/bin", "FANOUT": "x", "MAX_SITES": "-1", "XFANOUT_GUARD_X": "1"}) == Settings()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is how an application configures itself."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_SITES", "500")
    assert Settings.from_env().max_sites == 500


def test_metrics_without_the_library_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra must not be found at the first request."""
    monkeypatch.setattr("fanout_guard.settings.kinds.find_spec", lambda name: None)
    (problem,) = problems(METRICS="prometheus")
    needs = "'prometheus' needs prometheus_client: pip install 'fanout-guard[prometheus]'"
    assert problem == f"FANOUT_GUARD_METRICS: {needs}"


def test_there_is_one_variable_per_field() -> None:
    """The table of fields is the only place where a variable is said."""
    assert [variable.field for variable in variables()] == [
        field.name for field in fields(Settings) if field.name != "tenants_from_file"
    ]


def test_the_defaults_are_valid_settings() -> None:
    """Spelling every default out in the environment changes nothing."""
    texts = {v.name: str(v.default).lower() for v in variables() if v.default and not isinstance(v.default, str | dict)}
    texts |= {v.name: v.default for v in variables() if isinstance(v.default, str) and v.default}
    assert Settings.from_env(texts) == Settings()


def test_every_variable_of_the_reference_is_there() -> None:
    """The documented names are a promise."""
    names = (
        "MODE ROUTES TENANT DEFAULT_TENANT UNKNOWN_TENANTS DOCUMENT SITES COUNT MAX_SITES DOCUMENT_MAX_SITES"
        " DOCUMENT_WINDOW RATE MAX_INFLIGHT GLOBAL_MAX_INFLIGHT LEASE_TTL TENANTS TENANTS_FILE TENANT__<ID>__<FIELD>"
        " REDIS_URL REDIS_TIMEOUT KEY_PREFIX ON_OUTAGE WORKERS DIGEST_KEY REFUND_ON IDEMPOTENCY_HEADER MAX_BODY_BYTES"
        " REJECT_STATUS HEADERS METRICS METRICS_TENANTS OVERRIDES_TTL"
    )
    assert [variable.name.removeprefix(PREFIX) for variable in variables()] == names.split()


@pytest.mark.parametrize("text", ["3xx,4xx,503", "3XX, 4xx ,503"])
def test_refund_statuses_are_told_apart(text: str) -> None:
    """A status is looked up on every response."""
    statuses = read(REFUND_ON=text).refund_statuses
    assert [status in statuses for status in (200, 299, 300, 399, 400, 499, 500, 503)] == [
        *(False, False, True, True, True, True, False, True)
    ]
    assert read(REFUND_ON="").refund_statuses == frozenset()


def test_a_path_may_be_given_as_a_path(tmp_path: Path) -> None:
    """Code has paths as objects."""
    file = tmp_path / "tenants.json"
    file.write_text('{"acme": {"max_sites": 5}}')
    settings = Settings(tenants_file=file)  # type: ignore[arg-type]
    assert settings.policies().static("acme").circulation == 5
