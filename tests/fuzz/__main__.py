"""``python -m tests.fuzz``: millions of hostile bodies; exit 1 at the first undercount or unexpected exception."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from multiprocessing import Pool
from random import Random

from tests.fuzz.bodies import body
from tests.fuzz.check import check


def main() -> int:
    """Run the fuzzer and say what it found."""
    options = _options()
    print(f"seed {options.seed}, {options.inputs} bodies, {options.processes} process(es)", flush=True)
    started = time.monotonic()
    share = -(-options.inputs // options.processes)
    jobs = [(f"{options.seed}-{number}", share) for number in range(options.processes)]
    if options.processes == 1:
        results = [run(*jobs[0])]
    else:
        with Pool(options.processes) as pool:
            results = pool.starmap(run, jobs)
    faults = [fault for _, fault in results if fault]
    for fault in faults:
        print(fault, file=sys.stderr)
    accepted = sum(count for count, _ in results)
    print(f"{share * options.processes} bodies, {accepted} accepted, {len(faults)} faults, {_since(started)}")
    return 1 if faults else 0


def run(seed: str, inputs: int) -> tuple[int, str]:
    """How many of the bodies of a seed were accepted, and the first fault in words."""
    random = Random(seed)
    accepted = 0
    for number in range(inputs):
        candidate = body(random)
        try:
            accepted += check(candidate)
        except Exception as error:
            return accepted, f"seed {seed}, body {number}: {type(error).__name__}: {error}\n{candidate!r}"
    return accepted, ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many bodies (default: a million)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeat an earlier run")
    parser.add_argument("--processes", type=int, default=1)
    return parser.parse_args()


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
