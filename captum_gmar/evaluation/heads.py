"""Attention heads over a data set: how much each matters by several scores, and whether the scores mean anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics, ranked_heads
from captum_gmar.ablation.curve import HeadOrder, silencing_outcomes, tenths
from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import images_at_once, name_errors
from captum_gmar.classifier import Classifier, find_class
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, RANDOM_ORDERS, SCORES, check_name, load
from captum_gmar.evaluation.data.data_objects import make_subject
from captum_gmar.evaluation.data.example import Example, fingerprint
from captum_gmar.evaluation.data.subject import Subject, sample_numbers, versions
from captum_gmar.evaluation.reports.head_report import RANDOM, AblationResult, HeadResults, short_title, write_heads
from captum_gmar.evaluation.reports.report import provenance_lines
from captum_gmar.evaluation.runs.batches import Batches, Examples, Measure, Skipped
from captum_gmar.evaluation.runs.folder import check_output
from captum_gmar.evaluation.runs.journal import Record
from captum_gmar.evaluation.runs.progress import count, warning_listener
from captum_gmar.evaluation.runs.run import Run, Workplace, list_reasons, start_run, warn_of_skipped
from captum_gmar.evaluation.settings import HeadSettings

CPU_BATCH = 4  # each image is run hundreds of times without some heads, and batches are kept when they are finished

Orders: TypeAlias = dict[tuple[str, str], list[HeadOrder]]
"""Orders in which heads are silenced, by score and by which heads go first."""


def evaluate_heads(
    model: nn.Module,
    data: Any,
    scores: Sequence[str] | Mapping[str, HeadScore] = DEFAULT_SCORES,
    *,
    ablate: bool = False,
    random_orders: int = RANDOM_ORDERS,
    target: str | int = "predicted",
    seed: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    batch_size: int | None = None,
    processor: Any = None,
    forward_func: Callable[[Tensor], Tensor] | None = None,
    show_progress: bool = False,
) -> HeadResults:
    """Score the attention heads of a model over a data set, and test whether the scores mean anything.

    A score says how much a head matters to the class that is explained. With ``ablate`` heads are ranked by the mean of
    each score over one half of the images, drawn by ``seed``, and silenced in that order on the other half: zero in
    place of their outputs, from none to all in tenths. A score that finds the heads that matter keeps the predictions
    longer than random orders do where the least important go first, and loses them sooner where the most important do.
    :func:`captum_gmar.ablation.head_ablation_curve` does the same with other outputs in place of zero, or within
    layers.

    Args:
        model, data, limit, output, processor, forward_func, show_progress: As in :func:`captum_gmar.evaluate`; boxes
            and masks are of no meaning.
        scores (sequence of str, or dict, optional): Names of "gmar-l1" and "gmar-l2", GMAR's head importance, a share
            of the layer; "mask-gradient", :func:`captum_gmar.ablation.gradient_of_mask`, in nats, or of the logit where
            the model has one class or several at once; and "entropy", :func:`captum_gmar.ablation.attention_entropy`,
            in nats, which knows nothing of the class. Or a mapping from names of your own to callables
            ``score(inputs, target=...)`` that return (N, layers, heads). Default: gmar-l1 and mask-gradient.
        ablate (bool, optional): Whether heads are silenced as well, in 11 passes for each order and image of one half.
        random_orders (int, optional): How many random orders are silenced with them.
        target (str or int, optional): The class that is explained: "predicted", "label" for that of each image's
            label, or for all images a class index or class name.
        seed (int, optional): Seed of everything that is sampled.
        batch_size (int, optional): How many images run at once. Default: 4, on an accelerator 128.

    Returns:
        *HeadResults*: ``statistics``, by name of the score, hold the scores of every image, their mean and spread, and
        rank heads; ``ablation`` holds the curves. ``records()`` are rows for pandas, ``to_markdown()`` is the report,
        which notebooks show, ``visualize()`` plots the scores, and ``skipped`` lists what was left out.

    Raises:
        TypeError, ValueError, OSError: as :func:`captum_gmar.evaluate`.
        RuntimeError: if the model cannot be explained, or no image be scored; the error names the score.

    References:
        Michel, Levy, Neubig: Are Sixteen Heads Really Better than One? NeurIPS 2019, arXiv 1905.10650.

    Example::

        >>> from captum_gmar import evaluate_heads
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scenes = [load_scene(seed) for seed in range(4)]
        >>> data = [(scene.pixel_values[0], scene.labels[0]) for scene in scenes]
        >>> results = evaluate_heads(load_model(), data, ["gmar-l1", "entropy"], target="label")
        >>> results.statistics["gmar-l1"].mean.shape, len(results.images)
        (torch.Size([6, 4]), 4)
        >>> figure, axes = results.visualize(use_pyplot=False)
    """
    settings = HeadSettings(tuple(scores), target, ablate, random_orders, limit, seed, batch_size)
    check_model(model)
    subject = make_subject(model, data, processor, forward_func)
    listener = warning_listener(show_progress, is_kept=output is not None)
    place = Workplace(check_output(output), listener, "captum_gmar.evaluate_heads(...)")
    results = run_heads(settings, subject, place, scores if isinstance(scores, Mapping) else None)
    warn_of_skipped(results.skipped)
    return results


def run_heads(
    settings: HeadSettings, subject: Subject, place: Workplace, scores: Mapping[str, HeadScore] | None = None
) -> HeadResults:
    """Score heads, and silence them, in one of the processes that share the work; ``scores`` replace the settings'."""
    if settings.ablate and len(subject.classifier.labels) == 1:
        raise ValueError("ablate requires a model of several classes")
    # Boxes and masks do not matter here: they must not fail, nor make examples differ.
    examples = [replace(example, boxes=(), mask=None, files=example.files[:1]) for example in subject.examples]
    subject = replace(subject, examples=examples)
    made, units = _make_scores(scores or settings.scores, subject.classifier)
    target, explained = _explained_class(settings.target, subject)
    depends = {"scores": list(made), "target": settings.target, "seed": settings.seed}
    batch_size = settings.batch_size or (CPU_BATCH if subject.device.type == "cpu" else images_at_once(subject.device))
    batches = Batches(subject.examples, subject.preparation(target), subject.device, batch_size, place.listener.note)
    numbers = sample_numbers(len(examples), settings.limit, settings.seed)
    with start_run(place, {**subject.fingerprints(), **depends}) as folder:
        run = Run(batches, folder, place, batch_size)
        records, skipped = _record(run, numbers, partial(score_heads, made), "data must hold images that can be scored")
        ablation = None
        if settings.ablate:
            ablation, more = _silence_half(run, settings, subject, numbers, records)
            skipped += more
        data = f"{subject.data_name}, {count(len(records))}"
        results = HeadResults(
            *(subject.model_name, subject.data_name, explained),
            statistics=_statistics(tuple(made), list(records.values())),
            units=units,
            images=_image_names(records),
            ablation=ablation,
            skipped=tuple({skip.number: skip for skip in skipped}.values()),
            provenance=tuple(provenance_lines(subject.model_name, data, explained, place.command, versions())),
        )
        if place.folder:
            place.processes.first(lambda: write_heads(results, folder))
    return results


def _make_scores(
    scores: Sequence[str] | Mapping[str, HeadScore], classifier: Classifier
) -> tuple[dict[str, HeadScore], dict[str, str]]:
    """Return the scores and their units by name."""
    if isinstance(scores, Mapping):
        for name, score in scores.items():
            if name == "random":
                raise ValueError("scores must not be called 'random', as the orders that they are compared with are")
            if not callable(score):
                got = type(score).__name__
                raise TypeError(f"scores must be callable, score(inputs, target=...). Got {got} for {name!r} instead.")
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


def _record(
    run: Run,
    numbers: Sequence[int],
    measure: Measure[Record],
    requires: str,
    targets: Callable[[int], int] | None = None,
    part: str = "",
) -> tuple[dict[int, Record], list[Skipped]]:
    """Return the last record of each of these examples once all are measured, in the order of the data.

    Without any, ``requires`` begins the error. ``targets`` and ``part`` are those of :meth:`Run.finish`.
    """
    name = "silencing heads" if part else "scoring heads"
    kept, skipped = run.finish(
        numbers, lambda methods, seconds, *batch: measure(*batch), targets=targets, part=part, name=name
    )
    chosen = sorted({*numbers} & {*kept.records})
    records = run.place.processes.first(lambda: {number: kept.records[number][-1] for number in chosen})
    if not records:
        raise ValueError(f"{requires}. Got none: {list_reasons(skipped)}")
    return records, skipped


def score_heads(scores: Mapping[str, HeadScore], examples: Examples, batch_size: int) -> list[Record]:
    """Return nested lists (scores, layers, heads) for every example; errors name their score."""
    parts = []
    for part in examples.split(batch_size):
        values = []
        for name, score in scores.items():
            with name_errors(name):
                values.append(score(part.pixels, target=part.targets).cpu())
        parts.append(torch.stack(values, 1))
    return examples.records(torch.cat(parts).tolist())


def _statistics(names: Sequence[str], records: Sequence[Record]) -> dict[str, HeadStatistics]:
    importance = torch.tensor([record.values for record in records])  # (N, scores, layers, heads)
    targets = [record.target for record in records]
    each = zip(names, importance.unbind(1), strict=True)
    return {name: HeadStatistics.from_examples(scores, targets) for name, scores in each}


def _silence_half(
    run: Run, settings: HeadSettings, subject: Subject, numbers: Sequence[int], scored: Mapping[int, Record]
) -> tuple[AblationResult, list[Skipped]]:
    """Rank heads by every second example of the sample, and silence them on the others."""
    halves = numbers[::2], numbers[1::2]  # each keeps its examples when more follow
    ranking, testing = ([number for number in half if number in scored] for half in halves)
    if not ranking or not testing:
        raise ValueError("ablate requires two images or more")
    statistics = _statistics(settings.scores, [scored[number] for number in ranking])
    orders = silencing_orders(
        {name: score.mean for name, score in statistics.items()}, settings.random_orders, settings.seed
    )
    records, skipped = _record(
        run,
        testing,
        partial(silence_heads, subject.classifier, orders),
        "ablate requires images that run without heads",
        lambda number: scored[number].target,
        f"ablation-{fingerprint([repr(orders).encode()])}",
    )
    values = torch.tensor([record.values for record in records.values()], dtype=torch.float64)
    each = torch.split(
        values.movedim(0, -1), [len(heads) for heads in orders.values()]
    )  # (orders, counts, outcomes, N)
    curves, counts = {}, torch.tensor(_silent_counts(orders))
    for (key, heads), outcomes in zip(orders.items(), each, strict=True):
        accuracy, logit, probability = outcomes.unbind(2)
        curves[key] = HeadAblationCurve(counts, accuracy, logit, probability, heads)
    title = f"{short_title(subject.model_name, subject.data_name)}: heads silenced"
    return AblationResult(curves, len(ranking), _image_names(records), title), skipped


def silencing_orders(importance: Mapping[str, Tensor], random_orders: int, seed: int) -> Orders:
    """Rank heads by the importance (layers, heads) of each score, and sample random orders."""
    orders: Orders = {}
    for name, values in importance.items():
        ranked = ranked_heads(values)
        orders |= {(name, "least"): [ranked], (name, "most"): [ranked[::-1]]}
    shape = next(iter(importance.values())).shape
    sampled = torch.rand(random_orders, *shape, generator=torch.Generator().manual_seed(seed))
    return orders | {RANDOM: list(map(ranked_heads, sampled))}


def _silent_counts(orders: Orders) -> list[int]:
    """Return the numbers of silent heads at which predictions are measured."""
    return tenths(len(orders[RANDOM][0]))


def silence_heads(classifier: Classifier, orders: Orders, examples: Examples, batch_size: int) -> list[Record]:
    """Return nested lists (orders, counts, outcomes) for every example: accuracy, logit and probability."""
    each = [heads for several in orders.values() for heads in several]
    outcomes = [
        silencing_outcomes(classifier.model, classifier.logits, part.pixels, part.targets, each, _silent_counts(orders))
        for part in examples.split(batch_size)
    ]
    return examples.records(torch.cat(outcomes, -1).movedim(-1, 0).tolist())


def _image_names(records: Mapping[int, Record]) -> tuple[str, ...]:
    return tuple(record.example.name for record in records.values())
