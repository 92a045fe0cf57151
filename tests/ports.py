"""Free ports of this machine."""

from __future__ import annotations

import socket

_BUS = 10_000


def free_port() -> int:
    """A port that nobody listens on now, with room for a cluster node's second port above it."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port + _BUS > 65_535:
                continue
            try:
                bus.bind(("127.0.0.1", port + _BUS))
            except OSError:
                continue
            return port
