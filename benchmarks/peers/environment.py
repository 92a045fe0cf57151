"""The environment that the peers are installed into: never the one of the project, whose dependencies they are not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from msgspec.json import decode

from benchmarks.options import BadUsage
from benchmarks.peers.figures import Growth, Run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def prepare(*, upgrade: bool) -> None:
    """Make the environment with the newest releases, once; again where the list changed or ``upgrade`` is asked for."""
    wanted = REQUIREMENTS.read_text() + "\n".join(_own_dependencies())
    stamp = FOLDER / "installed.txt"
    if not upgrade and stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing the peers into {FOLDER.name} …", file=sys.stderr)
    venv.create(FOLDER, with_pip=True)
    command = [_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    command += ["-r", str(REQUIREMENTS), *_own_dependencies()]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise BadUsage("the peers could not be installed; see above")
    stamp.write_text(wanted)


def measure(loop: str, *, quick: bool, seed: int) -> Run:
    """One run, in a process of the peers' environment."""
    return decode(_inside("--loop", loop, "--seed", str(seed), quick=quick), type=Run)


def grow(*, quick: bool) -> Growth:
    """How the cost grows, on asyncio's own loop."""
    return decode(_inside("--growth", quick=quick), type=Growth)


def count_instructions() -> bool:
    """Print the instructions per decision; False where they could not be counted, which was said then."""
    return subprocess.run([_python(), "-m", "benchmarks.peers.instructions"], cwd=ROOT).returncode == 0


def _inside(*options: str, quick: bool) -> bytes:
    command = [_python(), "-m", "benchmarks.peers.inside", *options, *(["--quick"] if quick else [])]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    if answer.returncode:
        raise BadUsage("the measurement failed; see above")
    return answer.stdout


def _python() -> str:
    return str(FOLDER / "bin" / "python")


def _own_dependencies() -> list[str]:
    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies
