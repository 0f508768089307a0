"""What the methods cost beside the model's own passes, Captum's methods and other packages, on this machine.

    python -m benchmarks --preset small --output FOLDER

writes report.md, report.json and growth.png. Packages to compare with (benchmarks/peers.py) are measured where they are
installed. Exit status: 0, or 1 if a whole case or a method of this package could not be measured.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.machine import describe, versions
from benchmarks.measuring import EVERYTHING, Measurements, Measuring
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
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", help="cpu or cuda[:n] (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    preset, device = PRESETS[options.preset], options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if preset.needs_gpu and not device.startswith("cuda"):
        parser.error(f"--preset {options.preset} needs a CUDA device, but got {device}.")
    transformers.logging.set_verbosity_error()
    options.output.mkdir(parents=True, exist_ok=True)
    measuring = Measuring(preset, device, options.threads)
    command = shlex.join(["python", "-m", "benchmarks", "--preset", options.preset, "--output", "FOLDER"])
    try:
        for part in options.parts:
            getattr(measuring, part.replace("-", "_"))()
    finally:
        head = command, describe(device, options.threads), versions()
        write_report(options.output, measuring.found, preset, *head)
    print(options.output / "report.md")
    broken = list(_broken(measuring.found))
    for line in broken:
        print(f"not measured: {line}", file=sys.stderr)
    return 1 if broken else 0


def _broken(measurements: Measurements) -> Iterator[str]:
    """Give methods of this package that could not be measured, and whole cases. Others may not run everywhere."""
    for case, found in measurements.items():
        for row, reason in found.reasons.items():
            if row in (*OURS, *OF_SEVERAL, EVERYTHING):
                yield f"{case}: {row}: {reason}"


if __name__ == "__main__":
    sys.exit(main())
