"""Runs the tests on versions that CI does not run, before a release.

    python -m tools.versions torch==2.6.0
    python -m tools.versions torch==2.14.1 --newest --python python3.13 -- tests/engine

makes a virtual environment with these versions, in place of those of the constraints, runs pytest in it and prints a
row for the table in docs/versions.md. Exit status: that of pytest, or of what failed before it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("torch", "captum", "transformers", "numpy")
TESTING = ("pytest", "pytest-xdist")
ASK = f"""
import platform
from importlib.metadata import version
print(platform.python_version(), *map(version, {NAMED}), sep=" | ")
"""


def constraints(text: str, chosen: Sequence[str]) -> str:
    """Constraints without those of the packages that are chosen, and with these."""
    names = {requirement.split("==")[0] for requirement in chosen}
    kept = [line for line in text.splitlines() if line.split("==")[0] not in names]
    return "\n".join([*kept, *chosen]) + "\n"


def row(versions: str, tests: Sequence[str], outcome: str) -> str:
    """Of the table: the day, the versions, what was run and what came of it."""
    return f"| {date.today()} | {versions} | {' '.join(tests) or 'all'} | {outcome} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tools.versions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chosen", nargs="+", metavar="PACKAGE==VERSION")
    parser.add_argument("--newest", action="store_true", help="the others from constraints.txt, not the oldest")
    parser.add_argument("--python", default=sys.executable, help="that makes the virtual environment")
    given = list(sys.argv[1:] if arguments is None else arguments)
    tests = given[given.index("--") + 1 :] if "--" in given else []
    options = parser.parse_args(given[: given.index("--")] if "--" in given else given)
    file = ROOT / ("constraints.txt" if options.newest else "constraints-oldest.txt")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        chosen = place / "constraints.txt"
        chosen.write_text(constraints(file.read_text(), options.chosen))
        python = place / "venv" / "bin" / "python"
        commands = [
            [options.python, "-m", "venv", place / "venv"],
            [python, "-m", "pip", "install", "--quiet", "-c", chosen, *options.chosen, ROOT, *TESTING],
        ]
        for command in commands:
            done = subprocess.run(command)
            if done.returncode:
                return done.returncode
        versions = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()
        pytest = [python, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
        ran = subprocess.run(
            [*pytest, *(tests or [ROOT / "tests"])], cwd=ROOT if tests else place, text=True, stdout=-1
        )
    sys.stdout.write(ran.stdout)
    print(row(versions, tests, ran.stdout.strip().splitlines()[-1].strip("= ")))
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
