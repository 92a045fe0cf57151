"""``python -m tests.packaging dist``: the wheel and the sdist, installed alone in fresh environments, work."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

SMOKE = """
import asyncio, json, subprocess, sys
import fanout_guard
from fanout_guard import FanoutGuard, Settings
assert "site-packages" in fanout_guard.__file__, fanout_guard.__file__
async def main():
    guard = FanoutGuard(Settings.from_env({}))
    assert (await guard.admit(document="d", sites=["a"])).admitted
    assert not (await guard.admit(document="d", sites=[str(n) for n in range(301)])).admitted
    await guard.aclose()
asyncio.run(main())
from fanout_guard.counters.scripts import script
assert all(script(name).text for name in ("decide", "release", "refund"))
command = [sys.executable, "-m", "fanout_guard", "check-config", "--json"]
found = subprocess.run(command, capture_output=True, check=True)
json.loads(found.stdout)
"""


def main(folder: Path) -> int:
    """Try every distribution in ``folder``."""
    built = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    assert len(built) == 2, f"expected one wheel and one sdist in {folder}, found {built}"
    for distribution in built:
        with tempfile.TemporaryDirectory() as place:
            venv.create(place, with_pip=True)
            python = Path(place) / "bin" / "python"
            install = [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                str(distribution.resolve()),
            ]
            subprocess.run(install, check=True)
            subprocess.run([python, "-c", SMOKE], check=True, cwd=place)
            subprocess.run([Path(place) / "bin" / "fanout-guard", "--help"], check=True, stdout=subprocess.DEVNULL)
        print(f"{distribution.name}: installs alone and works")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
