"""``python -m tests.packaging dist``: the wheel and the sdist hold what they should, install alone, and work."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from tests.counters.servers import binary_of, running

PACKAGE = Path(__file__).parents[1] / "fanout_guard"

# Run with the address of a server, where no checkout is in sight.
SMOKE = """
import asyncio, json, subprocess, sys
from importlib.metadata import version

import fanout_guard
from fanout_guard import FanoutGuard, Settings

assert "site-packages" in fanout_guard.__file__, fanout_guard.__file__
assert fanout_guard.__version__ == version("fanout-guard")

async def main(**variables):
    guard = FanoutGuard(Settings.from_env({f"FANOUT_GUARD_{name}": value for name, value in variables.items()}))
    decision = await guard.admit(tenant="t", document="d", sites=["a", "b"])
    assert decision.admitted and not decision.degraded
    assert not (await guard.admit(tenant="t", document="d", sites=[str(n) for n in range(299)])).admitted
    assert await guard.refund("t", decision.lease_id, ["a"]) == 1
    await guard.release("t", decision.lease_id)
    await guard.aclose()

asyncio.run(main())
asyncio.run(main(REDIS_URL=sys.argv[1], REDIS_TIMEOUT="5", MAX_INFLIGHT="1000"))

def run(*arguments):
    command = [sys.executable, "-m", "fanout_guard", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout

assert run("--version").split() == ["fanout-guard", fanout_guard.__version__]
json.loads(run("check-config", "--json"))
"""


def main(folder: Path) -> int:
    """Try every distribution in ``folder``."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    assert len(wheels) == len(sdists) == 1, f"expected one wheel and one sdist in {folder}"
    check_wheel(wheels[0])
    check_sdist(sdists[0])
    binary = binary_of("valkey")
    assert binary is not None
    with running(binary) as url:
        for distribution in (*wheels, *sdists):
            check_installed(distribution, url)
            print(f"{distribution.name}: installs alone and works")
    return 0


def check_wheel(wheel: Path) -> None:
    """The wheel holds every file of the package, scripts and type marker too, and nothing beside it."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    written = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"fanout_guard/py.typed", "fanout_guard/counters/lua/decide.lua"} <= written <= held, written - held
    others = {name for name in held - written if ".dist-info/" not in name}
    assert not others, others


def check_sdist(sdist: Path) -> None:
    """Who packages it for a distribution can run its tests from it."""
    with tempfile.TemporaryDirectory() as place, tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
        (root,) = Path(place).iterdir()
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/core", "tests/test_architecture.py"]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    print(f"{sdist.name}: runs its tests")


def check_installed(distribution: Path, url: str) -> None:
    """In an environment with nothing else, it decides, alone and on a server, and has its command."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FANOUT_GUARD_", "PYTHON"))}
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python, command = f"{place}/bin/python", f"{place}/bin/fanout-guard"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, str(distribution.resolve())], check=True, env=clean)
        subprocess.run([python, "-W", "error", "-c", SMOKE, url], check=True, cwd=place, env=clean)
        subprocess.run([command, "--help"], check=True, cwd=place, env=clean, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
