"""Models whose classes have digits for names: the name is taken, and every command says so."""

import json
import shutil

import pytest

from captum_gmar.cli.main import main
from cli.commandline import rows, save_photo

pytestmark = pytest.mark.fault

NAMES = {"0": "1", "1": "2", "2": "3", "3": "0"}
READ_AS = "is read as a class name, that of class {}, not as a class index"


@pytest.fixture
def renamed(work, models):
    """A model of which every class has the next one's number for a name, and a folder of an image for each class."""
    shutil.copytree(models / "vit", work / "renamed")
    path = work / "renamed" / "config.json"
    config = json.loads(path.read_text())
    config |= {"id2label": NAMES, "label2id": {name: int(index) for index, name in NAMES.items()}}
    path.write_text(json.dumps(config))
    for name in NAMES.values():
        (work / "data" / name).mkdir(parents=True)
        save_photo(work / "data" / name / "a.png", seed=int(name))
    return path.parent


def test_explain_takes_the_name(run, renamed):
    result = run("photo.png", "--model", renamed, "--target", "1", "--contrast", "3", "--output", "a.png")
    assert "explained  1 (class 0)" in result.out
    assert "contrast   3 (class 2)" in result.out
    assert result.err.splitlines() == [
        f"captum-gmar: warning: target '1' {READ_AS.format(0)}.",
        f"captum-gmar: warning: contrast '3' {READ_AS.format(2)}.",
    ]


def evaluate(data, renamed):
    options = ["--methods", "rollout", "--metrics", "insertion", "--removal", "zero", "--steps", "2"]
    assert main(["evaluate", data, "--model", str(renamed), "--target", "label", "--output", "results", *options]) == 0


@pytest.mark.usefixtures("blank_pictures")
def test_evaluate_takes_folders_by_their_names(work, renamed, capsys):
    evaluate("data", renamed)
    targets = {row["label"]: row["target"] for row in rows(work / "results" / "examples.csv")}
    assert targets == {name: index for index, name in NAMES.items()}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert READ_AS.format(3) + "; so are 3 more." in line


@pytest.mark.usefixtures("blank_pictures")
def test_heads_takes_the_name(work, renamed, capsys):
    arguments = ["data", "--model", str(renamed), "--scores", "entropy", "--output", "results/"]
    assert main(["heads", *arguments, "--target", "1"]) == 0
    assert f"target '1' {READ_AS.format(0)}" in capsys.readouterr().err
    assert "1 (class 0)" in (work / "results" / "heads.md").read_text()


@pytest.mark.parametrize("label", ["1", 1])
def test_a_number_in_a_list_is_an_index_and_text_a_name(work, renamed, capsys, label):
    (work / "data.json").write_text(json.dumps([{"path": "photo.png", "label": label}]))
    evaluate("data.json", renamed)
    assert {row["target"] for row in rows(work / "results" / "examples.csv")} == {"0" if label == "1" else "1"}
    assert ("warning" in capsys.readouterr().err) is (label == "1")
