"""The files of an evaluation."""

from captum_gmar import evaluate
from captum_gmar.evaluation.reports.report_files import rank_methods, write_tables
from captum_gmar.evaluation.reports.statistics import Quantity, summarise_quantity
from evaluation.small_data import FEW, Pairs


def test_pictures_are_in_the_order_of_the_relevance_gain_where_there_is_no_difference():
    other = summarise_quantity(Quantity("gridpg", ""), {"first": [0.9], "second": [0.1]})
    gain = summarise_quantity(Quantity("srg", "mean"), {"first": [1.0], "second": [2.0]})
    assert rank_methods([other, gain]) == ["first", "second"]
    assert rank_methods([other]) == ["second", "first"]


def test_a_folder_of_relevance_gains_alone(vit, tmp_path):
    options = {**FEW, "metrics": ["srg", "aopc"], "output": tmp_path / "results"}
    evaluation = evaluate(vit, [Pairs()[0], Pairs()[1]], **options)
    assert {row["metric"] for row in evaluation.means()} == {"srg", "aopc"}
    assert [path.name for path in (tmp_path / "results" / "plots").iterdir()] == ["relevance-gain.png"]


def test_files_of_an_earlier_report_go(vit, tmp_path):
    """Remove files of curves and of a skipped image."""
    folder, table = tmp_path / "results", [{"name": "a", "value": 1 / 3, "low": None}]
    write_tables(tmp_path, {"curves": table, "skipped": table})
    assert (tmp_path / "curves.csv").read_text() == "name,value,low\na,0.333333333,\n"
    write_tables(tmp_path, {"curves": table, "skipped": []})
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]
    evaluate(vit, [Pairs()[0]], **FEW, output=folder)
    (folder / "plots" / "curves-zero.png").write_text("of an earlier report")
    (folder / "skipped.csv").write_text("of an earlier report")
    (folder / ".captum-gmar-0123.tmp").write_text("left by a kill")
    evaluate(vit, [Pairs()[0]], **FEW, output=folder)
    assert {path.name for path in folder.rglob("*") if path.is_file() and path.name != "process-0.jsonl"} == {
        *(".lock", "settings.json", "examples.csv", "summary.csv", "differences.csv", "curves.csv", "summary.md"),
        *("curves-mean.png", "other-metrics.png", "figures.bib"),
    }
