"""``overhead``: the same application bare, guarded with counters in its process, and guarded with Redis."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from typing import Any

from benchmarks.http_cost import LOOPS, measure_http
from benchmarks.interrupt import interruptible
from benchmarks.middleware_cost import measure_middleware
from examples.publishing_api.servers import ServerFailed


def register(commands: Any) -> None:
    """Add the command."""
    summary = "requests/s of the bare app, guarded in-process, guarded with Redis"
    parser = commands.add_parser("overhead", help=summary, description=f"Measure {summary}.")
    parser.add_argument("--loop", choices=(*LOOPS, "both"), default="both", help="event loop of the server (both)")
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


@interruptible()
def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    rounds, seconds = (2, 1.0) if options.quick else (5, 2.0)
    loops = LOOPS if options.loop == "both" else (options.loop,)
    try:
        cost = asyncio.run(measure_middleware(requests=500, rounds=4 * rounds))
        measured = [measure_http(loop, rounds=rounds, seconds=seconds) for loop in loops]
    except (ServerFailed, subprocess.SubprocessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 4
    if options.json:
        middleware = {**cost._asdict(), "guarded_in_parses": cost.guarded_in_parses}
        print(json.dumps({"middleware": middleware, "http": {each.loop: each.servers for each in measured}}))
        return 0
    print(f"beyond the bare app: unguarded request {cost.unguarded_us:.2f} µs,")
    print(f"300 sites with counters in process {cost.guarded_us:.0f} µs, {cost.guarded_in_parses:.1f} × json.loads")
    for each in measured:
        for name, figures in each.servers.items():
            print(
                f"{each.loop:8} {name:10} {figures['rate']:8.0f} requests/s  {each.against_bare(name):5.2f} ×  "
                f"p50 {figures['p50_ms']:6.2f} ms  p99 {figures['p99_ms']:6.2f} ms"
            )
    return 0
