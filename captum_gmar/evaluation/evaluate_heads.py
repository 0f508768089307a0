"""Attention heads over a data set: how much each matters by several scores, and whether the scores mean anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, RANDOM_ORDERS
from captum_gmar.evaluation.data.data_objects import make_subject
from captum_gmar.evaluation.data.subject import Subject, sample_numbers, versions
from captum_gmar.evaluation.measurement.head_scores import (
    Ablation,
    explained_class,
    make_scores,
    score_heads,
    score_statistics,
)
from captum_gmar.evaluation.reports.head_report import AblationResult, HeadResults, short_title, write_heads
from captum_gmar.evaluation.reports.report import provenance_lines
from captum_gmar.evaluation.runs.batches import Batches, Measure, Skipped
from captum_gmar.evaluation.runs.folder import check_output
from captum_gmar.evaluation.runs.journal import Record
from captum_gmar.evaluation.runs.progress import count, warning_listener
from captum_gmar.evaluation.runs.run import Run, Workplace, list_reasons, start_run, warn_of_skipped
from captum_gmar.evaluation.settings import HeadSettings

CPU_BATCH = 4  # each image is run hundreds of times without some heads, and batches are kept when they are finished


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
        model (nn.Module): A vision transformer, in evaluation mode, on the device that it is to run on. It is left as
            it was.
        data: The images, in any form that :func:`captum_gmar.evaluate` takes; boxes and masks are of no meaning.
        scores (sequence of str, or dict, optional): Names of "gmar-l1" and "gmar-l2", GMAR's head importance, a share
            of the layer; "mask-gradient", :func:`captum_gmar.ablation.gradient_of_mask`, in nats, or of the logit where
            the model has one class or several at once; and "entropy", :func:`captum_gmar.ablation.attention_entropy`,
            in nats, which knows nothing of the class. Or a mapping from names of your own to callables
            ``score(inputs, target=...)`` that return (N, layers, heads).
            Default: gmar-l1 and mask-gradient
        ablate (bool, optional): Whether heads are silenced as well, in 11 passes for each order and image of one half.
        random_orders (int, optional): How many random orders are silenced with them.
        target (str or int, optional): The class that is explained: "predicted", "label" for that of each image's
            label, or for all images a class index or class name.
        seed (int, optional): Seed of everything that is sampled.
        limit (int, optional): How many of the images are taken, sampled by ``seed``. More can follow later.
            Default: None, all
        output (str or Path, optional): A folder that keeps what is finished, with tables, pictures and a report. Killed
            at any moment, the same call goes on where it stopped; more images can follow, and the ablation. It refuses
            results of other settings, weights or preprocessing, but cannot compare ``forward_func`` or scores of your
            own.
            Default: None, nothing is kept
        batch_size (int, optional): How many images run at once.
            Default: 4, on an accelerator 128
        processor (optional): A Hugging Face image processor. Not needed where data holds pixel values.
        forward_func (Callable, optional): Takes pixel values and returns logits (examples, classes), by running
            ``model``.
            Default: the model's own logits
        show_progress (bool, optional): Whether to show a progress bar.

    Returns:
        *HeadResults*: ``statistics``, by name of the score, hold the scores of every image, their mean and spread, and
        rank heads; ``ablation`` holds the curves. ``records()`` are rows for pandas, ``to_markdown()`` is the report,
        which notebooks show, ``visualize()`` plots the scores, and ``skipped`` lists what was left out.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a name is not known, if the settings do not go with model or data, or if ``output`` holds other
            things.
        OSError: if data cannot be read or ``output`` not be written to, or another run is at work there.
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
    """Score heads, and silence them, in one of the processes that share the work. None returns before all is written.

    ``scores``, by name, replace those that the settings name.

    Raises:
        ValueError, OSError, RuntimeError: as :func:`evaluate_heads`.
    """
    if settings.ablate and len(subject.classifier.labels) == 1:
        raise ValueError("ablate must go with a model of several classes")
    # Boxes and masks do not matter here: they must not fail, nor make examples differ.
    examples = [replace(example, boxes=(), mask=None, files=example.files[:1]) for example in subject.examples]
    subject = replace(subject, examples=examples)
    made, units = make_scores(scores or settings.scores, subject.classifier)
    target, explained = explained_class(settings.target, subject)
    depends = {"scores": list(made), "target": settings.target, "seed": settings.seed}
    batch_size = settings.batch_size or (CPU_BATCH if subject.device.type == "cpu" else images_at_once(subject.device))
    batches = Batches(subject.examples, subject.preparation(target), subject.device, batch_size, place.listener.note)
    numbers = sample_numbers(len(examples), settings.limit, settings.seed)
    with start_run(place, {**subject.fingerprints(), **depends}) as folder:
        run = Run(batches, folder, place, batch_size)
        records, skipped = _record(run, numbers, partial(score_heads, made), "data must hold images that can be scored")
        ablation = None
        if settings.ablate:
            ablation, more = _silence_heads(run, settings, subject, numbers, records)
            skipped += more
        data = f"{subject.data_name}, {count(len(records))}"
        results = HeadResults(
            *(subject.model_name, subject.data_name, explained),
            statistics=score_statistics(tuple(made), list(records.values())),
            units=units,
            images=_image_names(records),
            ablation=ablation,
            skipped=tuple({skip.number: skip for skip in skipped}.values()),
            provenance=tuple(provenance_lines(subject.model_name, data, explained, place.command, versions())),
        )
        if place.folder:
            place.processes.first(lambda: write_heads(results, folder))
    return results


def _silence_heads(
    run: Run, settings: HeadSettings, subject: Subject, numbers: Sequence[int], scored: Mapping[int, Record]
) -> tuple[AblationResult, list[Skipped]]:
    """Rank heads by every second example of the sample, and silence them on the others."""
    halves = numbers[::2], numbers[1::2]  # each keeps its examples when more follow
    ranking, testing = ([number for number in half if number in scored] for half in halves)
    if not ranking or not testing:
        raise ValueError("ablate must go with two images or more")
    names = settings.scores
    statistics = score_statistics(names, [scored[number] for number in ranking])
    importance = {name: score.mean for name, score in statistics.items()}
    ablation = Ablation.by_scores(importance, settings.random_orders, settings.seed)
    records, skipped = _record(
        run,
        testing,
        partial(ablation.measure, subject.classifier),
        "ablate must go with images that run without heads",
        lambda number: scored[number].target,
        f"ablation-{ablation.fingerprint()}",
    )
    curves = ablation.curves([record.values for record in records.values()])
    title = f"{short_title(subject.model_name, subject.data_name)}: heads silenced"
    return AblationResult(curves, len(ranking), _image_names(records), title), skipped


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


def _image_names(records: Mapping[int, Record]) -> tuple[str, ...]:
    return tuple(record.example.name for record in records.values())
