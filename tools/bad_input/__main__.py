"""Try every kind of bad input, and print by group how many were answered as they should be."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tools.bad_input import calls, damaged, options
from tools.bad_input.rows import Place
from tools.bad_input.runs import Fault, all_runs

ROWS = [*options.ROWS, *damaged.ROWS, *calls.ROWS]


def main() -> int:
    """Print the table; 0 where all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.bad_input", description=__doc__)
    parser.add_argument("--long", action="store_true", help="kill runs 200 times in place of 10")
    parser.add_argument("--only", metavar="GROUP", action="append", help="a group of rows, or runs; repeatable")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        wanted = [row for row in ROWS if not arguments.only or row.group in arguments.only]
        results: list[Fault] = [(row.group, row.name, row.fault(place)) for row in wanted]
        if not arguments.only or "runs" in arguments.only:
            results += all_runs(place, 200 if arguments.long else 10)
    print(report(results))
    return int(any(fault for *_, fault in results))


def report(results: list[Fault]) -> str:
    """Tried and passed by group, and below them each that did not pass."""
    tried = Counter(group for group, *_ in results)
    passed = Counter(group for group, _, fault in results if fault is None)
    tried["all"], passed["all"] = tried.total(), passed.total()
    width = max(map(len, tried))
    lines = [f"{'':{width}} {'tried':>6} {'passed':>6}"]
    lines += [f"{group:{width}} {count:6} {passed[group]:6}" for group, count in tried.items()]
    lines += [f"{group}: {name}\n    {fault}" for group, name, fault in results if fault is not None]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
