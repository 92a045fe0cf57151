"""The way of one request through the code goes forward only; these tests read the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fanout_guard"
ROOT = PACKAGE.parent

# From the bottom up. What stands on one line is one level, and its parts do not import each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("types", "errors", "log"),
    ("core",),
    ("counters", "observe", "settings", "stress"),
    ("charges", "admission", "tenants", "guard"),
    ("asgi",),
    ("cli", "testing", "client", "fastapi"),
)
# One unit: a guard asks the tenants, and what it charges is in the hands of admissions.
ONE_UNIT = {"charges", "admission", "tenants", "guard"}
HEAVY = {"prometheus_client", "locust", "gevent", "numpy", "rich", "httpx", "fastapi", "limits"}


def part_of(module: str) -> str:
    """The first name below the package: ``fanout_guard.core.keys`` → ``core``."""
    return module.split(".")[1] if "." in module else ""


def level_of(part: str) -> int:
    """Where a part stands in the order."""
    return next(index for index, parts in enumerate(LEVELS) if part in parts)


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it runs; those for type checkers only do not count."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def files() -> list[Path]:
    """Every module of the package, without its front door."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem[0] != "_"]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    """A reader follows a request without ever having to turn back."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(path):
        if not module.startswith("fanout_guard.") or part_of(module) == own:
            continue
        other = part_of(module)
        if own in ONE_UNIT and other in ONE_UNIT:
            continue
        assert level_of(other) < level_of(own), f"{path.relative_to(ROOT)} imports {module}"


def test_only_the_edge_talks_to_the_driver() -> None:
    """What a driver's release changes is to be found in one place."""
    users = {path.relative_to(PACKAGE) for path in files() if any(map(_is_redis, imported(path)))}
    assert users
    assert all(path.parent.name == "counters" and path.name.startswith("redis") for path in users), users


def _is_redis(module: str) -> bool:
    return module.split(".")[0] == "redis"


def test_the_core_does_no_io() -> None:
    """A decision can be read, and tested, without a clock, a loop, an environment or a log."""
    banned = {"asyncio", "logging", "time", "socket", "threading", "random"}
    for path in (PACKAGE / "core").glob("*.py"):
        assert not banned.intersection(imported(path)), path
        assert "await " not in path.read_text(), path


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A worker that uses no metrics, no command line and no load test pays for none."""
    code = f"import sys, fanout_guard; sys.exit(' '.join({HEAVY!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert loaded.stderr.strip() == ""


PUBLIC = ("fanout_guard", "fanout_guard.client", "fanout_guard.fastapi", "fanout_guard.testing")
STEPS = ROOT / "benchmarks" / "micro"  # measures what is inside, one step at a time


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_examples_and_benchmarks_use_public_names_only(folder: str) -> None:
    """What we show is what users can write; the judgement of stress results is shared with ``verify``."""
    for path in (ROOT / folder).rglob("*.py"):
        for module in imported(path):
            inside = module.startswith("fanout_guard") and module not in PUBLIC
            shared = folder == "benchmarks" and part_of(module) in ("stress", "errors", "types")
            assert shared or not inside or STEPS in path.parents, f"{path.relative_to(ROOT)} imports {module}"


def test_what_is_public_has_a_name_and_a_docstring() -> None:
    """Completion and ``help()`` are where most people look first."""
    for module in map(import_module, PUBLIC):
        assert module.__doc__
        names = getattr(module, "__all__", [])
        assert names, module
        assert all(getattr(module, name).__doc__ for name in names), module
