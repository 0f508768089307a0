"""Running the command and telling what it did."""

import csv
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from classifiers import LABELS as LABELS
from PIL import Image

USUAL = "comparison-token-evidence-gmar-l1"  # what pictures of `explain` are named by without --methods

LONG = "x" * 300  # letters: longer than any file's name
MODEL = ("--model", "vit")
BASES = {  # a call of each command that would do; what comes later on the line goes before
    "explain": ("photo.png", *MODEL),
    "compare": ("photo.png", *MODEL, "--methods", "rollout", "--steps", "2"),
    "evaluate": ("photos.csv", *MODEL, "--methods", "rollout", "--steps", "2", "--output", "results"),
    "heads": ("photos", *MODEL, "--scores", "entropy", "--output", "heads.png"),
}


class Result(NamedTuple):
    status: int
    out: str
    err: str

    def is_error(self, *parts):
        """Return whether it is one line on stderr that holds the parts, with an empty stdout."""
        lines = self.err.splitlines()
        return (
            (self.status, self.out, len(lines)) == (2, "", 1)
            and lines[0].startswith("captum-gmar: error: ")
            and all(part in lines[0] for part in parts)
        )


Run = Callable[..., Result]


def run_process(*arguments, folder):
    command = [sys.executable, "-m", "captum_gmar", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def options(methods):
    return ["--methods", ",".join(methods)]


def save_photo(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_table(folder, count, boxes=None):
    """Write photos, and a table of them with class indices as labels and the same boxes, if any."""
    lines = ["path,label,boxes"]
    for number in range(count):
        save_photo(folder / f"{number}.png", seed=number)
        lines.append(f'{number}.png,{number % len(LABELS)},"{boxes or ""}"')
    (folder / "data.csv").write_text("\n".join(lines))
    return folder / "data.csv"


def rows(path):
    """Read a table of results."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def written(folder):
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond so many bytes, as on a full disk, within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def as_torchrun(processes):
    """Return the environments of so many processes that torchrun starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [{**address, **size, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
