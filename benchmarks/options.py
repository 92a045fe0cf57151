"""The command-line options that several commands share, and what makes a value of them wrong."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from benchmarks.plan import TEMPLATE, Plan, check_template
from examples.publishing_api.servers import Setup

LARGEST_SITES = 100_000
HEADER = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:([\t -~]*)")  # a field of RFC 9110, in ASCII

OF_EXAMPLE: Mapping[str, Any] = {"workers": 2, "slots": 300, "service_seconds": 0.5, "unguarded": False}
OF_HOST: Mapping[str, Any] = {
    "tenant": None,
    "header": [],
    "path": "/circulate-document",
    "body": None,
    "site_names": None,
    "yes": False,
}
"""The options of the one target and of the other, with what they are where nobody gives them."""


class BadUsage(ValueError):
    """Raised for a bad option or file; the command prints it and exits 2."""


class Parser(argparse.ArgumentParser):
    """argparse's, with one line for a mistake instead of the whole usage, and the option that may have been meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse here what a command does not know: only the command itself knows its options."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [option[2:] for action in self._actions for option in action.option_strings if option[1] == "-"]
            names = [text[2:].partition("=")[0] for text in rest if text.startswith("--")]
            near = [guess for name in names for guess in difflib.get_close_matches(name, known, n=1)]
            meant = f"; did you mean --{near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raise BadUsage: one line a problem."""
        raise BadUsage(f"{message} (see {self.prog} --help)")


def whole(text: str) -> int:
    """A whole number of at least 1, in plain digits."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def site_counts(text: str) -> tuple[int, ...]:
    """``100,200,300`` as ascending numbers, each once."""
    counts = [whole(part.strip()) for part in text.split(",")]
    if len(set(counts)) != len(counts):
        raise argparse.ArgumentTypeError(f"{text!r} names a level twice")
    if max(counts) > LARGEST_SITES:
        raise argparse.ArgumentTypeError(f"{text!r}: at most {LARGEST_SITES} sites")
    return tuple(sorted(counts))


def http_url(text: str) -> str:
    """An address that starts with http:// or https:// and names a host, without path."""
    try:
        parts = urlsplit(text)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or parts.path.strip("/") or parts.query or parts.fragment:
        place = "" if wrong or not parts.path.strip("/") else "; its path goes into --path"
        raise argparse.ArgumentTypeError(f"{text!r} is not an address like https://api.example.com{place}")
    if "@" in parts.netloc:  # it would stand in the results and the report
        raise argparse.ArgumentTypeError(
            "a user and password go into --header 'Authorization: …', not into the address"
        )
    return text.rstrip("/")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Options of the example that a command starts itself."""
    group = parser.add_argument_group("the example API, started on this machine")
    group.add_argument("--workers", type=whole, default=OF_EXAMPLE["workers"], help="uvicorn workers (2)")
    group.add_argument("--slots", type=whole, default=OF_EXAMPLE["slots"], help="deliveries at a time per worker (300)")
    group.add_argument(
        "--service-seconds",
        type=positive,
        default=OF_EXAMPLE["service_seconds"],
        help="longest time of a site, from 0 spread evenly (0.5)",
    )


def add_host(parser: argparse.ArgumentParser) -> None:
    """Options for somebody's own API."""
    group = parser.add_argument_group("your own API")
    group.add_argument("--host", type=http_url, help="address of the API; without it the example is started")
    group.add_argument("--tenant", help="publish as this tenant (header X-Tenant-ID, or {tenant} in a --header)")
    group.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header to send; repeatable"
    )
    group.add_argument(
        "--path", default=OF_HOST["path"], help="path to post to, with {document_id}, {tenant} (/circulate-document)"
    )
    group.add_argument(
        "--body",
        metavar="TEMPLATE",
        help='JSON, or @FILE, with "{sites}" for the list, and {document_id}, {headline}, {tenant} in texts',
    )
    group.add_argument("--site-names", type=Path, metavar="FILE", help="the sites to publish to, one per line")
    group.add_argument("--yes", action="store_true", help="do not ask before the first document")


def check_target(given: argparse.Namespace) -> None:
    """Raise BadUsage for an option of the target that is not tested: its verdict would be about another one."""
    others, why = (
        (OF_EXAMPLE, "is of the example API, and --host names another target")
        if given.host
        else (OF_HOST, "is for an API of your own, and --host is missing")
    )
    for name, default in others.items():
        if getattr(given, name) != default:
            raise BadUsage(f"--{name.replace('_', '-')} {why}")


def setup_from(options: argparse.Namespace, **changes: Any) -> Setup:
    """The example as the options describe it."""
    return Setup(workers=options.workers, slots=options.slots, service_seconds=options.service_seconds, **changes)


def host_plan(options: argparse.Namespace, *, run: str, largest: int) -> Plan:
    """What to send to ``--host``; raises BadUsage before anything is sent."""
    if not options.site_names:
        raise BadUsage("--host needs --site-names: nothing is published to invented sites")
    names = read_names(options.site_names)
    if len(names) < largest:
        raise BadUsage(f"{options.site_names}: holds {len(names)} names, the largest level needs {largest}")
    return Plan(
        phases=(),
        run=run,
        path=_path(options.path, options.tenant),
        headers=_headers(options.header, options.tenant),
        body=_template(options.body, options.path),
        site_names=tuple(names),
    )


def read_names(path: Path) -> list[str]:
    """Site names, one per line; raises BadUsage naming the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"{path}: cannot be read: {error}") from error
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (name := line.strip()):
            continue
        if name in names:
            raise BadUsage(f"{path}: line {number} repeats {name!r} of line {names[name]}")
        names[name] = number
    if not names:
        raise BadUsage(f"{path}: holds no site names")
    return list(names)


def confirm(options: argparse.Namespace, text: str) -> None:
    """Ask before publishing anything; raises BadUsage unless the answer is yes."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise BadUsage(f"{text} Give --yes, since there is no terminal to ask on")
    print(f"{text} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadUsage("nothing was sent")


def _path(text: str, tenant: str | None) -> str:
    if not text.startswith("/") or text.startswith("//"):  # two would name a host
        raise BadUsage(f"--path {text!r} does not start with one /")
    if "{tenant}" in text and not tenant:
        raise BadUsage("--path has {tenant}, but there is no --tenant")
    unknown = [name for name in re.findall("{.*?}", text) if name not in ("{document_id}", "{headline}", "{tenant}")]
    if unknown:
        raise BadUsage(f"--path has {unknown[0]}: it can have {{document_id}} and {{tenant}}")
    return text


def _headers(lines: list[str], tenant: str | None) -> dict[str, str]:
    if tenant is not None and not (tenant and tenant.isprintable() and max(tenant) <= "\xff"):
        raise BadUsage(f"--tenant {tenant!r} cannot be sent in a header")
    headers: dict[str, str] = {}
    for line in lines:
        match = HEADER.fullmatch(line)
        if not match:
            raise BadUsage(f"--header {line.partition(':')[0]!r} is not of the form 'NAME: VALUE'")
        if match[1].lower() in map(str.lower, headers):
            raise BadUsage(f"--header {match[1]!r} is given twice")
        headers[match[1]] = match[2].strip()
    if "{tenant}" in "".join(headers.values()) and not tenant:
        raise BadUsage("a --header has {tenant}, but there is no --tenant")
    if tenant and "{tenant}" not in "".join(headers.values()):
        named = {value for name, value in headers.items() if name.lower() == "x-tenant-id"}
        if named - {tenant}:
            raise BadUsage("--tenant and --header 'X-Tenant-ID' name different tenants: leave one out")
        if not named:
            headers["X-Tenant-ID"] = "{tenant}"
    return headers


def _template(text: str | None, path: str) -> Any:
    if text is None:
        return dict(TEMPLATE)
    try:
        template = json.loads(Path(text[1:]).read_text(encoding="utf-8-sig") if text.startswith("@") else text)
        check_template(template, path=path)
    except (OSError, ValueError) as error:
        raise BadUsage(f"--body: {error}") from error
    return template


def cap_from(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """``--cap``, or the cap that the environment configures, or 300."""
    if options.cap:
        return int(options.cap)
    text = environ.get("FANOUT_GUARD_MAX_SITES", "300") or "300"
    try:
        return whole(text)
    except argparse.ArgumentTypeError as error:
        raise BadUsage(f"FANOUT_GUARD_MAX_SITES: {error}; give --cap") from error
