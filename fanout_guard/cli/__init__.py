"""The command line. Each command group is a module with ``register(commands)``; ``main`` runs one and returns."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Sequence
from importlib import import_module

from fanout_guard import __version__
from fanout_guard.cli.advice import out_of_reach
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import OutputFailed, fail, prepare, warnings_told
from fanout_guard.cli.parser import Parser
from fanout_guard.errors import ConfigurationError, CountersUnavailable, FanoutGuardError, UnknownTenant
from fanout_guard.settings import PREFIX

GROUPS = (
    "check_config",
    "doctor",
    "usage",
    "top",
    "simulate",
    "caps",
    "reset",
    "leases",
    "verify",
    "completion",
)
"""The modules of this package that register commands, in the order of the help."""

_EPILOG = """\
settings come from the environment (FANOUT_GUARD_…), as in the application

exit status: 0 done, 1 the answer is no, 2 bad usage or configuration, 3 cannot tell

examples:
  fanout-guard check-config                       what the application would run with
  FANOUT_GUARD_MAX_SITES=500 fanout-guard check-config --json
  fanout-guard doctor                             what would go wrong
  fanout-guard usage acme                         where a tenant stands
  fanout-guard simulate payload.json --tenant acme
  fanout-guard caps set acme max_sites=500 --for 24h
  fanout-guard caps set '*' mode=shadow --for 1h    the kill switch
  fanout-guard verify results/results.json        has a stress test proven the caps?
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status and raises nothing."""
    prepare()
    arguments = argparse.Namespace(traceback=False)
    try:
        arguments = build_parser().parse_args(argv)
        with warnings_told():
            return int(arguments.run(arguments))
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else Exit.BAD
    except ConfigurationError as error:
        fail(*error.problems)
        return Exit.BAD
    except UnknownTenant as error:
        fail(
            f"tenant {error.tenant!a} is not known: no configuration names it, and {PREFIX}UNKNOWN_TENANTS is 'reject'"
        )
        return Exit.BAD
    except CountersUnavailable as error:
        fail(out_of_reach(error.reason))
        return Exit.UNKNOWN
    except OutputFailed as error:
        fail(str(error))
        return Exit.UNKNOWN
    except FanoutGuardError as error:
        fail(str(error))
        return Exit.BAD
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        # Its text might quote a secret (an address, say), so only its kind is told.
        fail(f"unexpected {type(error).__name__}; fanout-guard --traceback … shows where")
        if arguments.traceback:
            traceback.print_exc()
        return Exit.UNKNOWN


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command group."""
    parser = Parser(
        prog="fanout-guard",
        description="Inspect, try, change and verify the caps on how many sites a circulation may reach.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fanout-guard {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error happened")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for group in GROUPS:
        import_module(f"{__name__}.{group}").register(commands)
    return parser
