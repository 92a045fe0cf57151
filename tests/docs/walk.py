"""Walks through a page as a reader would: writes its files, runs its programs and commands, in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import yaml  # type: ignore[import-untyped]

from examples.publishing_api.servers import free_port, valkey
from fanout_guard.stress.results import write_results
from tests.docs.blocks import ROOT, Block
from tests.docs.rules import check_command, commands_of, only_parsed
from tests.stress.story import pool_of, run_of

PRINTS = "prints"
BLOCK_S = 150.0
SERVER_S = 90.0


class Walk:
    """One page's folder, servers and shell; port 8000 and Redis at 6379 stand for free ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._groups: list[int] = []
        self._ports = {"8000": str(free_port())}
        self._printed = ""
        self._environ = {name: text for name, text in os.environ.items() if not name.startswith("FANOUT_GUARD_")}
        self._environ |= {
            "PATH": f"{folder / 'bin'}:{self._environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{folder}",
            "FANOUT_GUARD_REDIS_TIMEOUT": "2",  # a busy machine is no outage
        }

    def __enter__(self) -> Self:
        for name in ("examples", "benchmarks"):
            (self._folder / name).symlink_to(ROOT / name)
        programs = {"fanout-guard": "-m fanout_guard", "python": "", "uvicorn": "-m uvicorn"}
        (self._folder / "bin").mkdir()
        for name, arguments in programs.items():
            program = self._folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
            program.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        self._stack.close()

    def take(self, block: Block) -> None:
        """Do what the block says; AssertionError, with its place, where it does not do what it promises."""
        if block.title == PRINTS:
            self._compare(block)
        elif block.language == "python":
            self._python(block)
        elif block.language == "sh":
            self._shell(block)
        else:
            check_data(block)
            if block.title:
                self._write(block)
            if block.language == "yaml":
                self._pipeline(block)

    def _write(self, block: Block) -> Path:
        path = self._folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(block.text), encoding="utf-8")
        return path

    def _python(self, block: Block) -> None:
        path = self._write(block if block.title else block._replace(title=f"block_{block.line}.py"))
        self._run([sys.executable, "-W", "error", str(path)], block)

    def _shell(self, block: Block) -> None:
        commands = commands_of(block.text)
        if only_parsed(commands):
            for command in commands:
                check_command(command)
            self._stand_in(commands)
            return
        in_background = [command for command in commands if command.endswith("&")]
        # A shell does not tell whether these have failed; a server does by what it answers.
        assert all(re.search(r"(^| )uvicorn ", each) for each in in_background), f"{block.where}: nothing awaits this"
        assert not (in_background and self._answers()), f"{block.where}: another server answers there already"
        self._script(block.text, block)
        if in_background:
            self._await_server(block)

    def _script(self, text: str, block: Block) -> None:
        exported = self._folder / "exported"
        exported.touch()
        script = f"set -euo pipefail\n. {exported}\ntrap 'export -p > {exported}' EXIT\n{self._here(text)}"
        self._run(["bash", "-c", script], block)

    def _pipeline(self, block: Block) -> None:
        """Run what a pipeline would, but for what it installs: a gate that never opens is no example."""
        for command in _pipeline_commands(yaml.safe_load(block.text)):
            if not only_parsed([command]):
                self._script(command, block)

    def _stand_in(self, commands: list[str]) -> None:
        """The results that a stress test of minutes would have left."""
        for command in commands:
            words = shlex.split(command)
            if words[:4] == ["python", "-m", "benchmarks", "sweep"] and "--out" in words:
                out = self._folder / words[words.index("--out") + 1]
                out.mkdir(parents=True, exist_ok=True)
                write_results(out / "results.json", run_of(pool_of(300)))

    def _run(self, command: list[str], block: Block) -> None:
        # Files of its own: a server that an earlier block started still writes to that block's.
        output, errors = (self._folder / f"{block.line}.{name}" for name in ("out", "err"))
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                command, cwd=self._folder, env=self._environ, stdout=out, stderr=err, start_new_session=True
            )
            self._groups.append(process.pid)
            status = process.wait(BLOCK_S)
        self._printed = output.read_text()
        assert status == 0, f"{block.where} exits {status}:\n{self._printed}{errors.read_text()}"

    def _compare(self, block: Block) -> None:
        printed = self._elsewhere(self._printed)
        if block.language == "json":
            assert json.loads(printed) == json.loads(block.text), f"{block.where}: {printed}"
            return
        pattern = re.escape(block.text.strip()).replace("…", ".*?")
        assert re.fullmatch(pattern, _lines(printed), re.DOTALL), f"{block.where} promises otherwise:\n{printed}"

    def _await_server(self, block: Block) -> None:
        give_up = time.monotonic() + SERVER_S
        while time.monotonic() < give_up:
            if self._answers():
                return
            time.sleep(0.05)
        words = (self._folder / f"{block.line}.err").read_text()
        raise AssertionError(f"{block.where}: no server: {words}")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(self._ports["8000"])), 1):
            return True
        return False

    def _here(self, text: str) -> str:
        if "6379" in text and "6379" not in self._ports:
            self._ports["6379"] = self._stack.enter_context(valkey()).rpartition(":")[2].partition("/")[0]
        for usual, port in self._ports.items():
            text = text.replace(f":{usual}", f":{port}").replace(f"port {usual}", f"port {port}")
        return text

    def _elsewhere(self, text: str) -> str:
        for usual, port in self._ports.items():
            text = text.replace(f":{port}", f":{usual}")
        return text


def check_data(block: Block) -> None:
    """AssertionError or ValueError where a block of data is none; a pipeline's commands are checked as well."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        for command in _pipeline_commands(yaml.safe_load(block.text)):
            check_command(command)
    else:
        assert block.language in ("text", "csv"), f"{block.where}: nothing checks a block of {block.language!r}"


def _pipeline_commands(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = commands_of(value["run"]) if isinstance(value.get("run"), str) else []
        return own + [command for each in value.values() for command in _pipeline_commands(each)]
    return [command for each in value for command in _pipeline_commands(each)] if isinstance(value, list) else []


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
