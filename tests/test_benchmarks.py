"""The report's own arithmetic, and how it goes on after failures. What anything costs is not tested here."""

import json
import os
import re
import statistics

import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification

pytest.importorskip("benchmarks.cases", reason="the benchmarks are not installed; they run in a checkout")

from methods import METHODS

from benchmarks import cases
from benchmarks.__main__ import main
from benchmarks.beside import beside
from benchmarks.cases import OTHERS, Case
from benchmarks.counting import Count, Ratio
from benchmarks.exactness import of_half_precision, of_methods
from benchmarks.isolated import Ended, failure, isolated
from benchmarks.journal import Found, Journal
from benchmarks.measuring import EVERYTHING, Measuring, OutOfTime, still_wanted
from benchmarks.memory import Peak, take_peaks
from benchmarks.plots import draw_growth
from benchmarks.presets import PRESETS, Preset
from benchmarks.report import to_markdown, write_report
from benchmarks.rows import BOTH, FORWARD, NAMES, OWN, Row, Subject
from benchmarks.summary import Line, Spread, fitted_exponent, grown, lines, spread
from benchmarks.timing import Failed, Limits, Sample, Started, couples, take_times
from benchmarks.word_cost import Held
from captum_gmar import AttentionEvidence
from captum_gmar.attr.catalogue import OURS

TINY = Case("ViT-Ti", 32, 2, layers=1)
LIMITS = Limits(rounds=2, enough=1000, longest=1000)


def found_of(*messages):
    found = Found()
    for message in messages:
        found.add(message)
    return found


def cells(text):
    """Of the rows of a Markdown table; bars that are escaped are no ends of cells."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


class TestGrowth:
    @pytest.mark.parametrize("power", [0.5, 1, 2])
    def test_of_a_power_law(self, power):
        sizes = [197, 577, 1025, 4097]
        assert fitted_exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)

    def test_is_the_slope_of_the_straight_line_by_least_squares(self):
        """Through (0, 0), (1, 1), (2, 3) in powers of two: 3/2, worked by hand."""
        assert fitted_exponent([1, 2, 4], [1, 2, 8]) == pytest.approx(1.5)

    def test_costs_that_are_not_above_zero_have_no_logarithm(self):
        assert fitted_exponent([1, 2, 4, 8, 16], [-5, 0, 4, 8, 16]) == pytest.approx(1)
        assert fitted_exponent([1, 2, 4], [0, 2, 4]) is None

    def test_memory_above_the_models_own(self, tmp_path):
        journal, cases = Journal(tmp_path / "new", {}, {}), [Case("ViT-Ti", 224, layers=depth) for depth in (1, 2, 4)]
        for case in cases:
            journal.add(case, Sample("gmar-l1", BOTH, 3.0 * case.layers**2, 1.0))
            journal.add(case, Peak(BOTH, 100.0))
            journal.add(case, Peak("gmar-l1", 100.0 + 5 * case.layers))
        own, gmar = grown(journal, "layers", cases, ["gmar-l1", "rollout"])
        assert (own.row, own.memory, gmar.row) == (BOTH, pytest.approx(0), "gmar-l1")
        assert (gmar.time, gmar.excess, gmar.excess_mib) == (pytest.approx(2), pytest.approx(1), (5.0, 10.0, 20.0))
        assert [len(panel.lines) for panel in draw_growth({"layers": [own, gmar]}).axes] == [2, 2]


class TestLines:
    def test_spread(self):
        assert spread([4.0]) == Spread(4.0, 4.0, 4.0)
        assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)

    def test_the_ratio_is_of_neighbours(self):
        """The median of the ratios, which is not the ratio of the medians."""
        taken = [Sample("gmar-l1", BOTH, seconds, own) for seconds, own in [(2.0, 1.0), (3.0, 3.0), (40.0, 10.0)]]
        own, gmar = lines(found_of(*taken, Peak(BOTH, 50.0), Peak("gmar-l1", 55.0)), ["gmar-l1"])
        assert gmar.ratio.median == 2.0 != statistics.median([2, 3, 40]) / statistics.median([1, 3, 10])
        assert (gmar.seconds, gmar.rounds, gmar.memory_ratio) == (3.0, 3, pytest.approx(1.1))
        assert (own.row, own.seconds, own.mib) == (BOTH, 3.0, 50.0)

    def test_a_row_that_failed_says_why(self):
        found = found_of(
            Failed("lxt", "ImportError: a | b"), Sample("rollout", FORWARD, 1.1, 1.0), Peak("rollout", 3.0)
        )
        rows = cells(to_markdown(lines(found, ["rollout", "lxt", "autolrp"])))[2:]
        assert rows == [
            ["*forward*", "", "", "", "1", "", "1"],
            ["rollout", "forward", "1.10 × [1.10, 1.10]", "", "1.1", "3.0", "1"],
            ["lxt", "", "not measured: ImportError: a \\| b", "", "", "", ""],
            ["autolrp", "", "not measured: out of time", "", "", "", ""],
        ]

    def test_memory_that_failed_says_why(self):
        found = found_of(Sample("rollout", FORWARD, 1.0, 1.0), Failed("rollout", "no memory"))
        assert "no memory" in cells(to_markdown(lines(found, ["rollout"])))[-1]


class TestWanted:
    def test_what_is_left_of_the_rounds(self):
        taken = [Sample("gmar-l1", BOTH, 1.0, 1.0), Sample("occlusion", FORWARD, 10.0, 1.0), Failed("lxt", "absent")]
        limits = Limits(rounds=3, enough=10, longest=1000)
        assert still_wanted(found_of(*taken), ["gmar-l1", "rollout", "occlusion", "lxt"], limits) == {
            "gmar-l1": 2,
            "rollout": 3,
        }

    def test_nothing_of_a_case_that_failed(self):
        assert still_wanted(found_of(Failed(EVERYTHING, "no memory")), ["gmar-l1"], LIMITS) == {}

    def test_the_own_pass_stands_between_two_rows(self):
        rows = {"a": Row(int, BOTH), "b": Row(int, FORWARD), "c": Row(int, BOTH), "d": Row(int, BOTH)}
        assert couples(rows, backwards=False) == [["b"], ["a", "c"], ["d"]]
        assert couples(rows, backwards=True) == [["d"], ["c", "a"], ["b"]]


class TestRuns:
    def test_times_of_a_tiny_model(self):
        sent = []
        names = ["gmar-l1", "rollout", "gmar-l1, 5 targets", "occlusion", "no such method"]
        take_times(sent.append, TINY, "cpu", 1, LIMITS, dict.fromkeys(names, 2))
        samples = [message for message in sent if isinstance(message, Sample)]
        assert sorted((s.row, s.own) for s in samples) == sorted(
            2 * [("gmar-l1", BOTH), ("rollout", FORWARD), ("gmar-l1, 5 targets", OWN[2]), ("occlusion", FORWARD)]
        )
        assert all(s.seconds > 0 and s.own_seconds > 0 for s in samples)
        assert [m for m in sent if isinstance(m, Failed)] == [Failed("no such method", "KeyError: 'no such method'")]

    def test_what_would_take_too_long_is_left_out(self):
        sent = []
        take_times(sent.append, TINY, "cpu", 1, Limits(1, 1, longest=0), {"occlusion": 1})
        assert sent == [Started("occlusion"), Failed("occlusion", "left out: 4 passes would take 0 minutes")]

    def test_memory_of_a_tiny_model(self):
        sent = []
        take_peaks(sent.append, TINY, "cpu", 1, [BOTH, "every A and G kept"])
        assert [message.row for message in sent] == [BOTH, "every A and G kept"]

    def test_what_a_process_sent_before_it_was_killed_is_kept(self):
        messages = isolated(sends_and_dies, 9)
        assert next(messages) == "first"
        with pytest.raises(Ended, match="killed, most likely for want of memory"):
            next(messages)

    def test_an_error_in_a_process_is_told(self):
        with pytest.raises(Ended, match="ZeroDivisionError: float division by zero"):
            list(isolated(divides, 0.0))

    def test_a_row_that_fails_is_not_run_again(self, monkeypatch):
        """It runs when it warms up, and no more after that."""
        runs, sent = [], []

        def run():
            runs.append(None)
            if len(runs) > 1:
                raise MemoryError

        monkeypatch.setattr("benchmarks.rows.Subject.row", lambda self, name: Row(run, FORWARD))
        take_times(sent.append, TINY, "cpu", 1, LIMITS, {"a": 2})
        assert (len(runs), sent[-1]) == (2, Failed("a", "MemoryError"))

    def test_reasons_are_one_line_without_paths(self):
        error = ImportError("cannot import name 'x' (/home/me/lib.py)\n  at all")
        assert failure(error) == "ImportError: cannot import name 'x' at all"
        assert failure(MemoryError()) == "MemoryError"


def divides(send, divisor):
    send(1 / divisor)


def sends_and_dies(send, signal):
    send("first")
    os.kill(os.getpid(), signal)


class TestMeasuring:
    PRESET = Preset(tables={TINY: ("gmar-l1", "rollout")}, growth={}, limits=LIMITS, exact=())

    def test_goes_on_where_it_stopped(self, tmp_path, monkeypatch):
        """What is taken is not taken again, and a row that kills its process is named and the others go on."""
        asked = []

        def times(work, case, device, threads, limits, due):
            asked.append(dict(due))
            yield Started("gmar-l1")
            if len(asked) == 1:
                raise Ended("killed")
            for name, count in due.items():
                yield from [Sample(name, FORWARD, 2.0, 1.0)] * count

        monkeypatch.setattr("benchmarks.measuring.isolated", times)
        for _ in range(2):
            journal = Journal(tmp_path / "new", {"preset": "tiny"}, {})
            Measuring(journal, self.PRESET, "cpu", 1, 60, lambda line: None).times()
        assert asked == [{"gmar-l1": 2, "rollout": 2}, {"rollout": 2}]
        assert journal.case(TINY).reasons == {"gmar-l1": "killed"}
        write_report(tmp_path / "new", journal, self.PRESET, "command", {"processor": "a"}, {"torch": "b"})
        assert ["rollout", "forward", "2.00 × [2.00, 2.00]"] in [
            row[:3] for row in cells((tmp_path / "new" / "report.md").read_text())
        ]
        written = json.loads((tmp_path / "new" / "report.json").read_text())
        assert [line["row"] for line in written["cases"][str(TINY)]] == [FORWARD, "gmar-l1", "rollout"]

    def test_time_is_up(self, tmp_path, monkeypatch):
        endless = (Sample("rollout", FORWARD, 1.0, 1.0) for _ in range(9))
        monkeypatch.setattr("benchmarks.measuring.isolated", lambda *arguments: endless)
        journal = Journal(tmp_path / "new", {}, {})
        with pytest.raises(OutOfTime):
            Measuring(journal, self.PRESET, "cpu", 1, 0, lambda line: None).times()
        assert len(journal.case(TINY).samples["rollout"]) == 1

    def test_other_settings_need_another_folder(self, tmp_path):
        Journal(tmp_path / "new", {"preset": "tiny"}, {})
        with pytest.raises(
            ValueError, match="holds results of other settings: preset is 'tiny' there and 'small' here"
        ):
            Journal(tmp_path / "new", {"preset": "small"}, {})


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_name_rows_and_what_grows(preset):
    assert {name for names in preset.rows.values() for name in names} <= set(NAMES)
    for growing in preset.growth.values():
        assert len(growing) >= 3
        assert {case.layers for case in growing}.isdisjoint({None})


def test_a_gpu_is_asked_for(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--preset", "gpu", "--device", "cpu", "--output", str(tmp_path / "new")])
    assert "--preset gpu needs a CUDA device, but got cpu." in capsys.readouterr().err


def test_exactness_is_measured_of_every_method_that_has_a_formula():
    model, inputs = Case("ViT-Ti", 64, 2, layers=4).build("cpu")
    errors = {agreement.method: agreement.error for agreement in of_methods(model, inputs)}
    assert list(errors) == [name for name, row in METHODS.items() if row.expected is not None]
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize(("precision", "least"), [(torch.bfloat16, 0.97), (torch.float16, 0.999)])
def test_half_precision_is_as_exact_as_the_models_own_numbers(precision, least):
    model, inputs = Case("ViT-Ti", 64, 2, layers=2).build("cpu")
    names = ["gmar-l1", "rollout-forward", "gradient-rollout", "cdam"]
    found = list(of_half_precision(model, inputs, precision, names))
    assert [agreement.method for agreement in found] == names
    assert min(agreement.correlation for agreement in found) > least
    for agreement in found[:3]:
        assert abs(agreement.correlation - agreement.correlation_of_model_least) < 0.005
    assert found[3].correlation_of_model is None


def test_what_was_counted_stands_beside_what_was_measured():
    case, other = Case("ViT-B", 224, 64, "bfloat16"), Case("ViT-B", 1024, 4, "bfloat16")
    ratio = Spread(3.0, 2.9, 3.1)
    measured = [Line(row, "forward", 1.0, ratio, 3, None, None, None) for row in ("rollout", "gmar-l1", "saliency")]

    def count(case, row):
        if row == "rollout":
            raise RuntimeError("no such operation")
        return Ratio(Count(operations=30, seconds=5), Count(operations=20, seconds=4))

    rows = beside({case: measured, other: []}, count).splitlines()
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]] == [
        [str(case), "rollout", "3.00 ×", "RuntimeError: no such operation", ""],
        [str(case), "gmar-l1", "3.00 ×", "1.25 ×", "1.50 ×"],
    ]


def test_methods_are_compared_with_a_pass_backward_unless_they_need_none():
    subject = Subject(Case("ViT-Ti", 32, 1, layers=2), "cpu")
    compared = {name: subject.row(name).own for name in OURS}
    alone = {"rollout", "rollout-forward", "rollout-additive", "raw-attention"}
    assert {name for name, own in compared.items() if own == FORWARD} == alone


def test_evidence_on_windows_keeps_no_more_than_it_reads():
    """What layers passed by give comes on top of forward and backward, and the pass ends with the last target."""
    torch.manual_seed(0)
    config = SwinConfig(image_size=112, embed_dim=24, depths=[2, 2, 4], num_heads=[2, 4, 8])
    model = SwinForImageClassification(config).eval().requires_grad_(False)
    inputs, evidence = torch.randn(1, 3, 112, 112), AttentionEvidence(model)
    evidence.attribute(inputs, target=0)  # finds out how the layers run
    with Held() as explained:
        evidence.attribute(inputs, target=0)
    leaf = inputs.clone().requires_grad_()
    with Held() as own:
        torch.autograd.grad(model(leaf).logits[0, 0], leaf)
    assert explained.peak <= 1.25 * own.peak
    with Held() as several:
        evidence.explain(inputs, targets=[0, 1])
    assert several.peak > explained.peak  # which must keep the pass for the second


@pytest.mark.parametrize("model", OTHERS)
def test_models_without_a_single_grid_are_built(model, monkeypatch):
    class Built(Exception):
        """What would be built is not, as it is large."""

    def build(config):
        raise Built(type(config).__name__)

    for name in ("SwinForImageClassification", "VideoMAEForVideoClassification"):
        monkeypatch.setattr(cases, name, build)
    with pytest.raises(Built, match=str(Case(model, 224)).partition("-")[0]):
        Case(model, 224).build("cpu")
    assert str(Case(model, 224)) == f"{model}/{OTHERS[model].patch}, 224², batch 1, float32"
