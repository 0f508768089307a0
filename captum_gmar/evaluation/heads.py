"""Attention heads over a data set: how much each matters by several scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_gmar.ablation import HeadStatistics
from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import images_at_once, name_errors
from captum_gmar.classifier import Classifier, find_class
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, SCORES, check_name, load
from captum_gmar.evaluation.data.data_objects import make_subject
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject, sample_numbers, versions
from captum_gmar.evaluation.reports.evaluation_result import Report
from captum_gmar.evaluation.reports.report import Records, provenance_lines, skipped_list
from captum_gmar.evaluation.runs.batches import Batches, Examples, Skipped
from captum_gmar.evaluation.runs.journal import Record
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.evaluation.runs.run import Run, Workplace, start_run, warn_of_skipped, workplace_of_call
from captum_gmar.evaluation.settings import HeadSettings
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import FEWEST, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CPU_BATCH = 4  # batches are kept when they are finished


@dataclass(frozen=True, eq=False, repr=False)
class HeadResults(Report):
    """The result of :func:`captum_gmar.evaluate_heads`. A notebook shows it as its tables; so does ``print``."""

    model: str
    data: str
    explained: str  # class that the scores explain, in words
    statistics: Mapping[str, HeadStatistics]  # of each score, with the scores of every image
    units: Mapping[str, str]  # of the scores
    images: tuple[str, ...]  # names, in the order of the statistics' examples
    skipped: tuple[Skipped, ...] = ()  # images that had to be left out, each with **name** and **reason**
    provenance: tuple[str, ...] = ()  # lines on the origin of the results

    def records(self) -> Records:
        """Return rows for ``pandas.DataFrame``: those of :meth:`HeadStatistics.records` with the key score."""
        return [{"score": name, **row} for name, statistics in self.statistics.items() for row in statistics.records()]

    def to_markdown(self) -> str:
        """Return the whole report: a table of layers and heads for each score, and how they agree."""
        parts = ["# Attention heads", "\n".join(self.provenance), self.tables()]
        if len(self.statistics) > 1:
            parts += ["## Do the scores agree? Spearman's rank correlation over all heads", _agreement(self.statistics)]
        if self.skipped:
            parts += ["## Left out", skipped_list(self.skipped)]
        return "\n\n".join(parts) + "\n"

    def tables(self) -> str:
        """Return a Markdown table of layers and heads for each score."""
        parts = []
        for name, statistics in self.statistics.items():
            has_spread = statistics.examples >= FEWEST
            text, cell = (" ± standard deviation over the images", "{:.3g} ± {:.2g}") if has_spread else ("", "{:.3g}")
            names = ["layer", *(f"head {head}" for head in range(statistics.mean.shape[1]))]
            layers = enumerate(zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True))
            rows = [[str(layer), *map(cell.format, *each)] for layer, each in layers]
            parts += [f"## {name}, {self.units[name]}{text}", _missing_spread(statistics), table(names, rows)]
        return "\n\n".join(filter(None, parts))

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot the mean of each score, a panel of layers and heads, with its standard deviation over the images.

        ``title`` stands in place of the names of model and data; with ``use_pyplot`` pyplot makes and shows the figure.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show
        from captum_gmar.visualization.heads import CELL_WIDTH, SPREAD_HEIGHT, visualize_head_importance

        layers, heads = next(iter(self.statistics.values())).mean.shape
        columns = min(len(self.statistics), 2)
        rows = ceil(len(self.statistics) / columns)
        width, height = max(heads * CELL_WIDTH, 3.6) + 0.8, max(layers * SPREAD_HEIGHT, 2.4) + 1.6  # with names
        figure = make_figure(columns * width, rows * height + 0.5, use_pyplot, pad=0.1)
        panels = [figure.add_subplot(rows, columns, number + 1) for number in range(len(self.statistics))]
        for panel, (name, scores) in zip(panels, self.statistics.items(), strict=True):
            options: dict[str, Any] = {"spread": scores.std if scores.examples >= FEWEST else None}
            options |= {"label": self.units[name], "plt_fig_axis": (figure, panel), "use_pyplot": False}
            visualize_head_importance(scores.mean, **options)
            panel.set_title("\n".join(filter(None, [name, _missing_spread(scores)])), fontsize="medium")
        names = f"{Path(self.model).name}, {Path(self.data).name}"  # without their folders
        draw_title(figure, title or f"{names}: heads, {count(len(self.images))}")
        show(figure, use_pyplot)
        return figure, panels


def evaluate_heads(
    model: nn.Module,
    data: Any,
    scores: Sequence[str] | Mapping[str, HeadScore] = DEFAULT_SCORES,
    *,
    target: str | int = "predicted",
    seed: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    batch_size: int | None = None,
    processor: Any = None,
    forward_func: Callable[[Tensor], Tensor] | None = None,
    show_progress: bool = False,
) -> HeadResults:
    """Score the attention heads of a model over a data set.

    A score says how much a head matters to the class that is explained. To test whether a score means anything, silence
    heads in its order by :func:`captum_gmar.ablation.head_ablation_curve`, on other images.

    Args:
        model, data, seed, limit, output, processor, forward_func, show_progress: As in :func:`captum_gmar.evaluate`;
            boxes and masks are of no meaning.
        scores (sequence of str, or dict, optional): Names of "gmar-l1" and "gmar-l2", GMAR's head importance, a share
            of the layer; "mask-gradient", :func:`captum_gmar.ablation.gradient_of_mask`, in nats, or of the logit where
            the model has one class or several at once; and "entropy", :func:`captum_gmar.ablation.attention_entropy`,
            in nats, which knows nothing of the class. Or a mapping from names of your own to callables
            ``score(inputs, target=...)`` that return (N, layers, heads). Default: gmar-l1 and mask-gradient.
        target (str or int, optional): The class that is explained: "predicted", "label" for that of each image's
            label, or for all images a class index or class name.
        batch_size (int, optional): How many images run at once. Default: 4, on an accelerator 128.

    Returns:
        *HeadResults*: ``statistics``, by name of the score, hold the scores of every image, their mean and spread, and
        rank heads. ``records()`` are rows for pandas, ``to_markdown()`` is the report, which notebooks show,
        ``visualize()`` plots the scores, and ``skipped`` lists what was left out.

    Raises:
        TypeError, ValueError, OSError: as :func:`captum_gmar.evaluate`.
        RuntimeError: if the model cannot be explained, or no image be scored; the error names the score.

    Example::

        >>> from captum_gmar import evaluate_heads
        >>> from captum_gmar.demo import load_model, load_scene
        >>> data = [(scene.pixel_values[0], scene.labels[0]) for scene in map(load_scene, range(4))]
        >>> results = evaluate_heads(load_model(), data, ["gmar-l1", "entropy"], target="label")
        >>> results.statistics["gmar-l1"].mean.shape, len(results.images)
        (torch.Size([6, 4]), 4)
        >>> figure, axes = results.visualize(use_pyplot=False)
    """
    settings = HeadSettings(scores if isinstance(scores, Mapping) else tuple(scores), target, limit, seed, batch_size)
    check_model(model)
    subject = make_subject(model, data, processor, forward_func)
    results = run_heads(settings, subject, workplace_of_call(output, show_progress, "evaluate_heads"))
    warn_of_skipped(results.skipped)
    return results


def run_heads(settings: HeadSettings, subject: Subject, place: Workplace) -> HeadResults:
    """Score heads in one of the processes that share the work."""
    # Boxes and masks do not matter here: they must not fail, nor make examples differ.
    examples = [replace(example, boxes=(), mask=None, files=example.files[:1]) for example in subject.examples]
    subject = replace(subject, examples=examples)
    made, units = _make_scores(settings, subject.classifier)
    target, explained = _explained_class(settings.target, subject)
    depends = {"scores": list(made), "target": settings.target, "seed": settings.seed}
    batch_size = settings.batch_size or (CPU_BATCH if subject.device.type == "cpu" else images_at_once(subject.device))
    batches = Batches(subject, target, batch_size, place.listener.note)
    numbers = sample_numbers(len(examples), settings.limit, settings.seed)
    with start_run(place, {**subject.fingerprints(), **depends}) as folder:
        run = Run(batches, folder, place, batch_size)
        records, skipped = run.measure_once(numbers, partial(score_heads, made), "scoring heads", "scored")
        targets = [record.target for record in records]
        importance = torch.tensor([record.values for record in records]).unbind(1)  # each (N, layers, heads)
        statistics = [HeadStatistics.from_examples(values, targets) for values in importance]
        data = f"{subject.data_name}, {count(len(records))}"
        results = HeadResults(
            *(subject.model_name, subject.data_name, explained),
            statistics=dict(zip(made, statistics, strict=True)),
            units=units,
            images=tuple(record.example.name for record in records),
            skipped=tuple(skipped),
            provenance=tuple(provenance_lines(subject.model_name, data, explained, place.command, versions())),
        )
        if place.folder:
            place.processes.first(lambda: _write_heads(results, folder))
    return results


def _make_scores(settings: HeadSettings, classifier: Classifier) -> tuple[dict[str, HeadScore], dict[str, str]]:
    """Return the scores and their units by name."""
    if isinstance(scores := settings.scores, Mapping):
        for name, score in scores.items():
            if not callable(score):
                got = type(score).__name__
                raise TypeError(f"scores must be callable, score(inputs, target=...), but got {got} for {name!r}.")
        return dict(scores), dict.fromkeys(scores, "score")
    has_softmax = len(classifier.labels) != 1 and not classifier.is_multi_label
    loss, unit = ("cross_entropy", "nats") if has_softmax else ("logit", "of the logit")
    made: dict[str, HeadScore] = {}
    for name in scores:
        home, fixed = SCORES[check_name(name, SCORES, "scores")][1:]
        if home is None:
            method: Any = METHODS[name].load()(classifier.model, forward_func=classifier.logits)
            made[name] = method.head_importance
        else:
            options = {} if fixed else {"loss": loss}
            made[name] = partial(load(home), classifier.model, forward_func=classifier.logits, **options)
    return made, {name: SCORES[name].unit or unit for name in scores}


def _explained_class(target: str | int, subject: Subject) -> tuple[Callable[[Example], int | None], str]:
    """Return a function from examples to the class that is explained (None: the predicted one), and its name."""
    names = {"predicted": "the predicted class", "label": "the class of the label"}
    if target in names:
        return subject.targets(str(target)), names[str(target)]
    labels = subject.classifier.labels
    chosen = find_class(target, labels, forms="predicted, label, an index or a label")
    return lambda example: chosen, f"{labels[chosen]} (class {chosen})" if len(labels) else f"class {chosen}"


def score_heads(scores: Mapping[str, HeadScore], examples: Examples, batch_size: int) -> list[Record]:
    """Return nested lists (scores, layers, heads) for every example; errors name their score."""
    values, parts = [], examples.split(batch_size)
    for name, score in scores.items():
        with name_errors(name):
            values.append(torch.cat([score(part.pixels, target=part.targets).cpu() for part in parts]))
    return examples.records(torch.stack(values, 1).tolist())


def _write_heads(results: HeadResults, folder: Path) -> None:
    """Write tables, the picture and, last, the report. Other tables of an earlier report are removed."""
    from captum_gmar.evaluation.reports.report_files import write_tables
    from captum_gmar.files.writing import save_picture, write_text

    write_tables(folder, {"heads": results.records(), "skipped": [skip._asdict() for skip in results.skipped]})
    save_picture(results.visualize(use_pyplot=False)[0], folder / "heads.png")
    write_text(folder / "heads.md", results.to_markdown())


def _missing_spread(statistics: HeadStatistics) -> str:
    """Return why the mean of several images has no ±; nothing where it has, and of one image."""
    examples = statistics.examples
    return f"Mean of {examples} images; fewer than {FEWEST} show no spread." if 1 < examples < FEWEST else ""


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([score.mean.flatten() for score in statistics.values()])
    rows = zip(statistics, (spearman(mean.expand_as(means), means).tolist() for mean in means), strict=True)
    return table(["", *statistics], ([name, *map("{:.2f}".format, values)] for name, values in rows))
