"""The stress suite's commands: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import importlib
import sys

INSTALL = "install what the suite needs, pip install -e '.[bench]'"

try:
    from benchmarks.options import BadUsage, Parser
    from benchmarks.usage import UsageError
    from fanout_guard.errors import FanoutGuardError
except ModuleNotFoundError as missing:  # a checkout that nothing was installed for
    print(f"benchmarks: {missing}: {INSTALL}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # loading takes its time
    print("benchmarks: interrupted", file=sys.stderr)
    sys.exit(3)

COMMANDS = ("sweep", "analyze", "compare", "isolation", "overhead", "peers.command")
ABOUT = "To how many sites may one document go before everybody's latency rises? Measures it, and judges the cap."
EPILOG = "exit codes: 0 pass, 1 the cap or a goal fails, 2 bad usage, 3 cannot tell, 4 target or generator failed"


def parser() -> argparse.ArgumentParser:
    """All commands; each module adds its own with ``register``."""
    root = Parser(prog="python -m benchmarks", description=ABOUT, epilog=EPILOG)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        try:
            module = importlib.import_module(f"benchmarks.{name}")
        except ModuleNotFoundError as missing:
            raise BadUsage(f"{missing}: {INSTALL}") from missing
        module.register(commands)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every problem is one line on standard error."""
    try:
        given = parser().parse_args(arguments)
        return int(given.run(given))
    except (BadUsage, UsageError, FanoutGuardError, OSError) as error:
        for line in str(error).splitlines():
            print(f"benchmarks: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
