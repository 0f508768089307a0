"""What the methods cost beside the model's own passes, Captum's methods and other packages, on this machine.

    python -m benchmarks --preset small --output FOLDER

writes report.md, report.json and growth.png. Every measurement is written down at once: the same command goes on where
an earlier one ended. Packages to compare with (benchmarks/peers.py) are measured where they are installed. Exit status:
0, or 1 if a whole case or a method of this package could not be measured.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.isolated import prepare
from benchmarks.journal import Journal
from benchmarks.machine import describe, versions
from benchmarks.measuring import EVERYTHING, Measuring, OutOfTime
from benchmarks.presets import PRESETS
from benchmarks.report import write_report
from benchmarks.rows import OF_SEVERAL
from captum_gmar.attr.catalogue import OURS

PARTS = ("times", "memory", "start-up", "exactness")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="small", help="what is measured (default: small)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new one, or one to go on with")
    parser.add_argument("--device", help="cpu or cuda[:n] (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="measure for this long at most")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    preset, device = PRESETS[options.preset], options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if preset.needs_gpu and not device.startswith("cuda"):
        parser.error(f"--preset {options.preset} needs a CUDA device, but got {device}.")
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes are ended and the report is written
    machine, found = describe(device, options.threads), versions()
    try:
        journal = Journal(options.output, {"preset": options.preset, "machine": machine}, found)
    except ValueError as error:
        parser.error(str(error))
    for difference in journal.differing:
        _say(f"warning: other versions than before: {difference}")
    prepare()
    measuring = Measuring(journal, preset, device, options.threads, options.minutes, _say)
    try:
        for part in options.parts:
            getattr(measuring, part.replace("-", "_"))()
    except OutOfTime:
        _say("out of time: the same command goes on from here")
    finally:
        command = shlex.join(["python", "-m", "benchmarks", "--preset", options.preset, "--output", "FOLDER"])
        write_report(options.output, journal, preset, command, machine, found)
    print(options.output / "report.md")
    broken = list(_broken(journal))
    for line in broken:
        _say(f"not measured: {line}")
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _broken(journal: Journal) -> Iterator[str]:
    """What of this package could not be measured, and whole cases. Others may not run everywhere."""
    for case, found in journal.found.items():
        for row, reason in found.reasons.items():
            if row in (*OURS, *OF_SEVERAL, EVERYTHING):
                yield f"{case}: {row}: {reason}"


if __name__ == "__main__":
    sys.exit(main())
