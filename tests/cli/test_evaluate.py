"""``captum-gmar evaluate``, end to end: its files, kills, several processes and bad input."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import leave_blank
from PIL import Image

from captum_gmar.classifier import load_classifier
from captum_gmar.cli import main as cli
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.measurement.measures import Measures
from captum_gmar.evaluation.runs.journal import read_batches as batches_of
from captum_gmar.metrics.controls import CONTROLS
from cli.commandline import LABELS, as_torchrun, rows, save_photo, written
from cli.forked import run_forked

METHODS = ("gmar-l1", "rollout")
OPTIONS = ("--methods", ",".join(METHODS), "--removal", "zero,tokens", "--steps", 4)
TABLES = ("examples.csv", "summary.csv", "differences.csv", "curves.csv")
IMAGES = 20
WRITTEN = 2e-9  # what nine digits leave open of the difference of two numbers up to one


pytestmark = pytest.mark.usefixtures("blank_pictures")


def read_batches(journal):
    return list(batches_of(journal))


@pytest.fixture
def data(work):
    return make_data(work, IMAGES)


def make_data(folder, images):
    """A table of images, every second with a box, labels being class indices."""
    records = []
    for number in range(images):
        save_photo(folder / f"{number}.png", seed=number)
        boxes = [[4, 4, 40, 30]] if number % 2 else None
        records.append({"path": f"{number}.png", "label": number % len(LABELS), "boxes": boxes})
    (folder / "data.json").write_text(json.dumps(records))
    return folder / "data.json"


@pytest.fixture
def evaluate(command, models):
    """Return a function that runs the command on the model "vit" unless another is given."""
    return lambda *arguments, model="vit": command(
        "evaluate", *arguments, *(["--model", models / model] if model else [])
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, models):
    """Return the folder of a run over all images; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_blank(patch)
        finish([make_data(folder, IMAGES), *OPTIONS, "--model", models / "vit", "--output", "results"], folder)
    return folder / "results"


def content(folder):
    """The tables, which must not change from run to run."""
    return {name: (folder / name).read_text() for name in TABLES}


def test_results(finished):
    folder = finished
    others = [".lock", "journal", "plots", "settings.json", "figures.bib", "summary.md"]
    assert written(folder) == sorted([*TABLES, *others])
    assert written(folder / "plots") == [
        "curves-tokens.png",
        "curves-zero.png",
        "insertion-deletion.png",
        "other-metrics.png",
    ]
    examples = rows(folder / "examples.csv")
    removed = [
        (row["metric"], row["removal"]) for row in examples if row["example"] == "1" and row["method"] == "rollout"
    ]
    assert removed == [
        *[("insertion", "zero"), ("insertion", "tokens"), ("deletion", "zero"), ("deletion", "tokens")],
        *[("average-drop", ""), ("average-increase", ""), ("average-gain", "")],
        *[("pointing-game", ""), ("relevance-mass", ""), ("relevance-rank", "")],
    ]
    assert [row["example"] for row in examples] == sorted((row["example"] for row in examples), key=int)
    assert {row["method"] for row in examples} == {*METHODS, *CONTROLS}


def test_summary_is_of_the_examples(finished):
    examples, summary = rows(finished / "examples.csv"), rows(finished / "summary.csv")
    for row in summary:
        own = [
            float(example["value"])
            for example in examples
            if all(example[name] == row[name] for name in ("metric", "removal", "method"))
        ]
        if row["metric"] != "insertion-deletion":
            assert float(row["mean"]) == pytest.approx(np.mean(own))
            assert (
                len(own)
                == int(row["examples"])
                == (IMAGES // 2 if row["metric"].startswith(("rel", "poi")) else IMAGES)
            )
        assert float(row["low"]) - WRITTEN <= float(row["mean"]) <= float(row["high"]) + WRITTEN
    means = {(row["metric"], row["removal"], row["method"]): float(row["mean"]) for row in summary}
    for row in rows(finished / "differences.csv"):
        key = row["metric"], row["removal"]
        difference = means[*key, row["method"]] - means[*key, row["other"]]
        assert float(row["difference"]) == pytest.approx(difference, abs=WRITTEN)
    for removal in ("zero", "tokens"):
        for method in METHODS:
            inserted, deleted = (means[metric, removal, method] for metric in ("insertion", "deletion"))
            assert means["insertion-deletion", removal, method] == pytest.approx(inserted - deleted, abs=WRITTEN)


def test_curves_have_the_areas_of_the_summary(finished):
    curves, summary = rows(finished / "curves.csv"), rows(finished / "summary.csv")
    summary = {(row["metric"], row["removal"], row["method"]): float(row["mean"]) for row in summary}
    for key in [(metric, removal, "gmar-l1") for metric in ("insertion", "deletion") for removal in ("zero", "tokens")]:
        points = [row for row in curves if (row["metric"], row["removal"], row["method"]) == key]
        assert [float(row["share"]) for row in points] == [0, 0.25, 0.5, 0.75, 1]
        area = (np.trapezoid if hasattr(np, "trapezoid") else np.trapz)([float(row["mean"]) for row in points], dx=0.25)
        assert summary[key] == pytest.approx(area, abs=1e-5)


def test_more_methods_can_follow(data, evaluate, monkeypatch):
    """Those that were measured are not measured again, and the tables are those of all from the beginning."""
    few = ("--removal", "zero", "--steps", 4, "--batch-size", 1, "--methods")
    evaluate(data, *few, "rollout", "--output", "results", "--limit", 3)
    measured, measure = [], Measures.rows
    monkeypatch.setattr(Measures, "rows", lambda self, name, *rest: measured.append(name) or measure(self, name, *rest))
    evaluate(data, *few, "gmar-l1,rollout", "--output", "results", "--limit", 4)
    assert sorted(measured) == sorted(["gmar-l1", "gmar-l1", "rollout", *CONTROLS])
    evaluate(data, *few, "gmar-l1,rollout", "--output", "whole", "--limit", 4)
    ours, theirs = (rows(data.parent / folder / "examples.csv") for folder in ("results", "whole"))
    values = [[float(row.pop("value")) for row in table] for table in (ours, theirs)]
    assert ours == theirs
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    evaluate(data, *few, "rollout", "--output", "results", "--limit", 4)
    assert {row["method"] for row in rows(data.parent / "results" / "examples.csv")} == {"rollout", *CONTROLS}


def test_methods_that_follow_where_there_is_nothing_to_measure(data, evaluate):
    """Every first image has no box."""
    options = ("--metrics", "relevance-mass", "--part", "1/2", "--output", "results", "--methods")
    for methods in ("rollout", "rollout,gmar-l1"):
        done = evaluate(data, *options, methods)
        assert done.status == 0
        assert "nothing to sum up" in done.err


def finish(arguments, folder):
    """Runs the command to its end, in this process."""
    assert Path.cwd() == folder
    assert cli.main(["evaluate", *map(str, arguments)]) == 0


def test_killed_and_resumed_is_unbroken(work, models):
    """Resume in one process a run of two. The first is killed, which ends the other."""
    images = 24  # of which some are left when the first is killed
    options = (*OPTIONS, "--metrics", "insertion,sensitivity-max", "--batch-size", 2)
    everything = (make_data(work, images), *options, "--model", models / "vit", "--output")
    journal = work / "killed" / "journal"
    words = list(map(str, ("evaluate", *everything, "killed")))
    ends = run_forked(words, work, kill_once_in=journal, copies=as_torchrun(2))
    assert all(ended.status < 0 for ended in ends), ends
    finished = read_batches(journal)
    assert 0 < sum(len(batch.records) for batch in finished) < images
    assert not (work / "killed" / "summary.md").exists()
    finish([*everything, "killed"], work)
    finish([*everything, "unbroken"], work)
    assert content(work / "killed") == content(work / "unbroken")
    kept = read_batches(journal)
    assert [batch for batch in kept if batch in finished] == finished  # not computed again
    names = [record.example.name for batch in kept for record in batch.records]
    assert sorted(names) == sorted(f"{number}.png" for number in range(images))


def test_two_processes_give_what_one_gives(data, models, finished):
    everything = (data, *OPTIONS, "--model", models / "vit", "--output")
    ends = run_forked(list(map(str, ("evaluate", *everything, "two"))), data.parent, copies=as_torchrun(2))
    assert [ended.status for ended in ends] == [0, 0], ends
    assert content(data.parent / "two") == content(finished)
    assert written(data.parent / "two" / "journal") == ["process-0.jsonl", "process-1.jsonl"]


def test_an_unreadable_image_costs_no_process_the_report(data, models):
    """Two images are missing from the report and its tables, of which none is an earlier one."""
    everything = (data, *OPTIONS, "--model", models / "vit", "--output", "results")
    finish([*everything, "--limit", 8], data.parent)
    for name in ("3.png", "4.png"):
        (data.parent / name).write_bytes(b"no image")
    ends = run_forked(["evaluate", *map(str, everything)], data.parent, copies=as_torchrun(2))
    assert sorted(ended.status for ended in ends) == [0, 1], ends
    folder = data.parent / "results"
    assert f"{IMAGES - 2} images" in (folder / "summary.md").read_text()
    assert {row["name"] for row in rows(folder / "skipped.csv")} == {"3.png", "4.png"}
    assert {int(row["example"]) for row in rows(folder / "examples.csv")} == {*range(IMAGES)} - {3, 4}


@contextmanager
def at_work(folder):
    """A process that owns the folder; killed at the end."""
    code = (
        "import sys; from pathlib import Path; from captum_gmar.evaluation.runs.folder import lock_folder\n"
        "with lock_folder(Path(sys.argv[1]), print): print('owned', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == b"owned\n"
            yield running.pid
        finally:
            running.kill()


def test_a_folder_has_one_owner(data, evaluate):
    """Name the owner, who leaves nothing behind that a kill could not undo."""
    few = ("--methods", "rollout", "--metrics", "average-gain", "--limit", 3, "--output", "results")
    evaluate(data, *few)
    before = (data.parent / "results" / "examples.csv").read_text()
    with at_work(data.parent / "results") as owner:
        refused = evaluate(data, *few[:-4], "--output", "results")
        assert refused.is_error(
            f"results cannot be used: process {owner} on ", "is at work there. Wait until it is done"
        )
    assert (data.parent / "results" / "examples.csv").read_text() == before
    assert evaluate(data, *few).status == 0


def test_data_may_grow_and_move(data, models, evaluate):
    """One more image, before all others, and the same weights by another path: nothing is measured twice."""
    few = ("--methods", "rollout", "--metrics", "average-gain", "--output", "results")
    evaluate(data, *few)
    measured = read_batches(data.parent / "results" / "journal")
    save_photo(data.parent / "new.png", seed=99)
    data.write_text(json.dumps([{"path": "new.png"}, *json.loads(data.read_text())]))
    shutil.copytree(models / "vit", data.parent / "moved")
    assert evaluate(data, *few, "--model", "moved", model=None).status == 0
    batches = read_batches(data.parent / "results" / "journal")
    assert batches[: len(measured)] == measured
    assert [record.example.name for batch in batches[len(measured) :] for record in batch.records] == ["new.png"]
    assert len({row["path"] for row in rows(data.parent / "results" / "examples.csv")}) == IMAGES + 1


def test_steps_that_nobody_gave_are_as_many_as_there_are_patches(data, evaluate):
    few = ("--methods", "rollout", "--metrics", "insertion", "--removal", "zero", "--limit", 1, "--output", "results")
    assert evaluate(data, *few).status == 0
    curve = [row for row in rows(data.parent / "results" / "curves.csv") if row["method"] == "rollout"]
    assert len(curve) == 16 + 1  # points, of 4x4 patches


def test_a_flat_folder(work, evaluate):
    done = evaluate(".", "--methods", "rollout", "--metrics", "all", "--steps", 4, "--output", "results")
    assert done.status == 0, done.err
    assert done.out == "1 image measured: results/summary.md\n"
    assert {row["path"] for row in rows(work / "results" / "examples.csv")} == {"photo.png"}


def test_interrupted(data, evaluate, monkeypatch):
    measure = Faithfulness.measure

    def interrupted(self, *arguments):
        if self.batches.any_done:
            raise KeyboardInterrupt
        return measure(self, *arguments)

    few = ("--methods", "rollout", "--metrics", "average-gain", "--output", "results")
    with monkeypatch.context() as patch:
        patch.setattr(Faithfulness, "measure", interrupted)
        stopped = evaluate(data, *few)
    assert stopped.status == 130
    assert stopped.err == "captum-gmar: note: interrupted: 8 of 20 images kept; the same command goes on\n"
    assert evaluate(data, *few).status == 0


def test_progress_without_a_terminal(data, evaluate, monkeypatch):
    monkeypatch.setattr("captum_gmar.evaluation.runs.progress.SECONDS_APART", 0)
    done = evaluate(data, "--methods", "rollout", "--metrics", "average-gain", "--output", "results")
    lines = done.err.splitlines()
    assert [line.rsplit(",")[0] for line in lines] == [
        f"captum-gmar: progress: measuring: {count} of 20 images" for count in (8, 16)
    ]
    assert all(line.endswith(" min left") for line in lines)


def test_built_in_scenes(work, evaluate):
    done = evaluate(
        *("--methods", "gradient-rollout", "--steps", 4, "--limit", 4, "--output", "results"),
        *("--metrics", "deletion,relevance-mass,class-sensitivity"),
        model=None,
    )
    assert done.status == 0, done.err
    summary = {(row["metric"], row["method"]): float(row["mean"]) for row in rows(work / "results" / "summary.csv")}
    assert summary["relevance-mass", "gradient-rollout"] > 2 * summary["relevance-mass", "uniform map"]
    assert summary["class-sensitivity", "centre blob"] == 0


def test_bfloat16_is_close(data, evaluate):
    for precision in ("float32", "bfloat16"):
        evaluate(data, *OPTIONS, "--output", precision, "--precision", precision, "--metrics", "insertion")
    exact, rounded = (
        [float(row["value"]) for row in rows(data.parent / name / "examples.csv")] for name in ("float32", "bfloat16")
    )
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.02)


def test_a_model_that_cannot_be_explained(data, evaluate):
    assert evaluate(data, "--output", "results", model="nan").is_error("token-evidence: ")


def test_pictures_are_pictures(data, evaluate, drawn):
    evaluate(data, *OPTIONS, "--output", "results", "--limit", 3)
    for name in written(data.parent / "results" / "plots"):
        with Image.open(data.parent / "results" / "plots" / name) as picture:
            assert min(picture.size) > 200


def test_a_finished_run_with_a_bad_image_stays_finished(data, evaluate, damage):
    damage(data.parent / "3.png")
    for _ in range(2):
        assert evaluate(data, *OPTIONS, "--output", "results").status == 1
    assert [row["name"] for row in rows(data.parent / "results" / "skipped.csv")] == ["3.png"]
    assert len({row["example"] for row in rows(data.parent / "results" / "examples.csv")}) == IMAGES - 1


def test_several_labels_at_once_are_followed_one_by_one(data, models, evaluate):
    assert evaluate(data, *OPTIONS, "--metrics", "deletion", "--limit", 2, "--output", "r", model="multi").status == 0
    classifier = load_classifier(models / "multi")
    (first, *_) = [
        row for row in rows(data.parent / "r" / "curves.csv") if (row["method"], row["removal"]) == ("rollout", "zero")
    ]
    names = {row["path"]: int(row["target"]) for row in rows(data.parent / "r" / "examples.csv")}
    with torch.no_grad():
        expected = [
            classifier.logits(classifier.pixel_values(Image.open(data.parent / name))).sigmoid()[0, target]
            for name, target in names.items()
        ]
    assert float(first["mean"]) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)
