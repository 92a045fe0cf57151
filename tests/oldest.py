"""``python -m tests.oldest``: every dependency of the package and its extras at the lowest version that it claims.

Written as constraints for pip. What only tests, demo and benchmarks use is left at its newest release.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = ("cli", "client", "fastapi", "opentelemetry", "prometheus", "stress")

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?>=(?P<floor>[0-9.]+),<[0-9.]+$")


def oldest(requirements: Iterable[str]) -> Iterator[str]:
    """``name==floor`` for each requirement; ValueError for one that has no floor and bound."""
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r}: expected name>=lowest,<bound")
        yield f"{match['name']}=={match['floor']}"


def main() -> int:
    """Print the constraints."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    for line in oldest([*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
