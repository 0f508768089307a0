"""Runs that are killed, run out of disk, or share a folder: nothing is lost, and the same command ends it."""

import csv
import random
import signal

import pytest

from cli.commandline import save_photo
from cli.forked import run_forked

EVALUATE = "evaluate photos.csv --model vit --methods rollout,gmar-l1 --metrics insertion,deletion --steps 2"
COMMANDS = {
    "examples.csv": f"{EVALUATE} --batch-size 1 --output results",
    "heads.csv": "heads photos --model vit --scores all --batch-size 1 --output results",
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 5  # at random moments


def rows(path):
    """The lines of a table in order, without times, which no two runs share."""
    with path.open(newline="") as file:
        head, *lines = csv.reader(file)
    return sorted([cell[:8] for cell, name in zip(line, head, strict=True) if name != "seconds"] for line in lines)


def content(folder, table):
    results = folder / "results"
    return {str(path.relative_to(results)) for path in results.rglob("*")}, rows(results / table)


@pytest.fixture(scope="module", params=COMMANDS)
def table(request):
    return request.param


@pytest.fixture(scope="module")
def place(tmp_path_factory, models):
    """Makes a new folder with two photos, a table of them and the model."""

    def fresh():
        folder = tmp_path_factory.mktemp("run")
        (folder / "photos").mkdir()
        for seed in range(2):
            save_photo(folder / "photos" / f"{seed}.png", seed)
        (folder / "photos.csv").write_text("path,label\nphotos/0.png,0\nphotos/1.png,1\n")
        (folder / "vit").symlink_to(models / "vit")
        return folder

    return fresh


@pytest.fixture(scope="module")
def whole(table, place):
    """Return the seconds and the files of an undisturbed run."""
    folder = place()
    (ended,) = run_forked(COMMANDS[table].split(), folder)
    assert ended.status == 0, ended
    return ended.seconds, content(folder, table)


def is_clear(ended):
    """Return whether a run that had a reason to fail has ended in its own words."""
    said = ended.status == 0 or "error: " in ended.error
    return ended.status in (0, 1, 2) and said and "Traceback" not in ended.error


def test_kills_at_random_moments(table, place, whole):
    moments, words, folder = random.Random(0), COMMANDS[table].split(), place()
    for _ in range(KILLS):
        number = moments.choice(SIGNALS)
        run_forked(words, folder, kill_after=moments.uniform(0, whole[0]), with_signal=number)
    (ended,) = run_forked(words, folder)
    assert ended.status == 0, ended
    assert content(folder, table) == whole[1]


@pytest.mark.parametrize("full", [{"file_size": 500}, {"file_size": 30_000}, {"out": "/dev/full"}], ids=str)
def test_a_full_disk(table, place, whole, full):
    """One line is said, and with room again the results are those of a run that always had it."""
    folder, words = place(), COMMANDS[table].split()
    (ended,) = run_forked(words, folder, **full)
    assert is_clear(ended), ended
    (ended,) = run_forked(words, folder)
    assert ended.status == 0, ended
    assert content(folder, table) == whole[1]


def test_two_at_once(table, place, whole):
    """One does it and the other says why it does not, or both do, one after the other."""
    folder = place()
    ends = run_forked(COMMANDS[table].split(), folder, copies=({}, {}))
    assert all(map(is_clear, ends)), ends
    assert 0 in [ended.status for ended in ends]
    assert content(folder, table) == whole[1]
