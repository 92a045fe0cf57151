"""The server that all subjects count in, and what it says of itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from statistics import median
from typing import Any

from redis import Redis

from examples.publishing_api import servers


class Server:
    """A Valkey of this run, by a blocking connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Redis = Redis.from_url(url)

    def cpu_seconds(self) -> float:
        """The processor time that the server has used, reading and answering included."""
        cpu: Any = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def clear(self) -> None:
        """Forget every key; scripts stay loaded."""
        self._client.flushall()

    def memory(self) -> dict[bytes, int]:
        """The bytes of every key, its name included."""
        return {key: int(self._client.memory_usage(key, samples=0) or 0) for key in self._client.scan_iter(count=1000)}

    def version(self) -> str:
        """The server's name and version."""
        facts: Any = self._client.info("server")
        if "valkey_version" in facts:
            return f"Valkey {facts['valkey_version']}"
        return f"Redis {facts['redis_version']}"

    def watch_calls(self) -> None:
        """Note the time of every command from here on."""
        self._client.config_set("slowlog-log-slower-than", "0")
        self._client.config_set("slowlog-max-len", "100000")
        self._client.slowlog_reset()

    def script_calls_us(self) -> list[int]:
        """Microseconds of each script call since ``watch_calls``, ascending; ends the watch."""
        self._client.config_set("slowlog-log-slower-than", "-1")
        entries: Any = self._client.slowlog_get(100_000)
        return sorted(entry["duration"] for entry in entries if entry["command"].upper().startswith(b"EVALSHA"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextmanager
def valkey() -> Iterator[Server]:
    """An embedded Valkey that persists nothing, gone with all its data afterwards."""
    with servers.valkey() as url, closing(Server(url)) as server:
        yield server


def pipelined_rate(server: Server, script: str, *, rounds: int) -> float | None:
    """The script calls per second of ``redis-benchmark`` with full pipelines; None where it is not installed."""
    tool = shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")
    if tool is None:
        return None
    client: Redis = Redis.from_url(server.url)
    sha: Any = client.script_load(script)
    client.close()
    port = server.url.rpartition(":")[2].partition("/")[0]
    command = [tool, "-p", port, "-c", "4", "-P", "64", "-n", "200000", "--csv"]
    command += ["EVALSHA", sha, "1", "pipelined", "300", "1000000000", "60"]
    rates = []
    for _ in range(rounds):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        rates.append(float(answer.stdout.strip().splitlines()[-1].split(",")[1].strip('"')))
    return median(rates)
