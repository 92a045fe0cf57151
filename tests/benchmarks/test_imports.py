"""Locust changes the whole process that imports it, so only its own process does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks

FOLDER = Path(benchmarks.__file__).parent


def test_no_command_and_no_analysis_loads_locust_or_gevent() -> None:
    """gevent under the analysis, the sampler or pytest would break asyncio and sockets there."""
    program = (
        "import sys; from benchmarks.__main__ import parser; parser(); import benchmarks.sampler, benchmarks.report;"
        "print(sorted({'locust', 'gevent'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["sweep"]])
def test_a_bare_checkout_is_told_what_to_install(arguments: list[str]) -> None:
    """``-S`` leaves out what is installed: whoever has just cloned the repository sees this first."""
    command = [sys.executable, "-S", "-m", "benchmarks", *arguments]
    answer = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("benchmarks: No module named ")
    assert answer.stderr.endswith("pip install -e '.[bench]'\n")
    assert answer.stderr.count("\n") == 1


def test_what_is_measured_beside_the_peers_needs_nothing_that_their_environment_lacks() -> None:
    """It has the package and the peers, and none of what the other commands need."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('psutil', 'aiohttp', 'jinja2', 'matplotlib', 'numpy', 'rich')));"
        "import benchmarks.http_cost, benchmarks.middleware_cost, benchmarks.peers.guard, benchmarks.peers.measure"
    )
    subprocess.run([sys.executable, "-c", program], cwd=FOLDER.parent, check=True)


def test_what_locust_loads_has_no_asyncio_client() -> None:
    """An asyncio client under gevent hangs or blocks the whole generator."""
    loaded = [FOLDER / name for name in ("locustfile.py", "sequencer.py", "plan.py", "answers.py")]
    names = set()
    for path in loaded:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    assert not names & {"asyncio", "aiohttp", "httpx", "redis", "fanout_guard", "examples"}


def test_ctrl_c_while_the_suite_is_loaded_leaves_no_traceback() -> None:
    """Loading takes half a second: long enough to see that an option was forgotten."""
    code = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'benchmarks.usage':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "runpy.run_module('benchmarks', run_name='__main__')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (3, "benchmarks: interrupted\n")
