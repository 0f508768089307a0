"""Evaluation of methods over a data set."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_gmar.attr.catalogue import EVALUATED, METHODS, find_method, unique_names
from captum_gmar.attr.methods import usual_methods
from captum_gmar.attr.patch_relevance import Method, check_methods
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.evaluation.catalogue import DEFAULT_REMOVALS
from captum_gmar.evaluation.data.data_objects import make_subject
from captum_gmar.evaluation.data.subject import Subject, sample_numbers, versions
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.reports.evaluation_result import Evaluation
from captum_gmar.evaluation.reports.report import Provenance, Tables, summarise
from captum_gmar.evaluation.runs.batches import Skipped, first_pixels
from captum_gmar.evaluation.runs.journal import Batch, Result, missing_methods, result_of
from captum_gmar.evaluation.runs.run import (
    Run,
    Workplace,
    list_reasons,
    report_skipped,
    start_run,
    warn_of_skipped,
    workplace_of_call,
)
from captum_gmar.evaluation.settings import EvaluationSettings, complete_settings
from captum_gmar.metrics.controls import CONTROLS

CHUNK = 8  # examples that are kept at once


def evaluate(
    model: nn.Module,
    data: Any,
    methods: Sequence[str] | Mapping[str, Method] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    removals: Sequence[str] = DEFAULT_REMOVALS,
    target: str = "predicted",
    steps: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    processor: Any = None,
    forward_func: Callable[[Tensor], Tensor] | None = None,
    show_progress: bool = False,
) -> Evaluation:
    r"""Measure how faithful the maps of methods are, and how well placed, over a data set.

    Every method explains the same class of the same images; a random, a uniform and a centred map, which know nothing
    of the model, are measured along with them. Means come with 95 % bootstrap intervals over the images, differences of
    methods are taken image by image; fewer than ten images show neither an interval nor which method is better. Images
    that cannot be read or explained are left out of everything, and listed.

    Args:
        model (nn.Module): An image or video classifier, in evaluation mode, on the device that it is to run on. It is
            left as it was.
        data: The images, as one of

            - a path: a folder of images or with a subfolder of images for each class, a .csv file or a .json list of
              records with path, label, boxes and mask, or a folder that the ``datasets`` library has saved;
            - a ``datasets.Dataset`` with a column image and perhaps label, boxes and mask;
            - a ``torch.utils.data.Dataset``, a sequence or another iterable of tuples (image, label, boxes or mask), of
              which the last or the last two may be absent, or of dictionaries with these keys. An image is a
              ``PIL.Image``, an array (height, width, channels), a path, or a tensor of pixel values (channels, height,
              width) that the model takes as they are; a label is a class index, or a class name of the model; boxes
              are a list of (x0, y0, x1, y1) in pixels of the image, a mask is not zero on the object. A video
              classifier takes pixel values (frames, channels, height, width) and masks (frames, height, width).
        methods (sequence of str, or dict, optional): Names of :func:`captum_gmar.list_methods`, or a mapping from names
            of your own to Captum ``Attribution``\ s or callables that take inputs and ``target=`` and return
            attributions in their shape.
            Default: those of token-evidence, attention-evidence, gmar-l1, gmar-l2, rollout, gradient-rollout, gmar++
            and input-x-gradient that explain the model
        metrics (sequence of str, optional): Of insertion, deletion, average-drop, average-increase, average-gain,
            pointing-game, relevance-mass, relevance-rank, srg, srg-probability, mif, lif, mif-accuracy, lif-accuracy,
            aopc, class-gain, gridpg, completeness-error, class-sensitivity, sensitivity-max and infidelity.
            Default: the first five, and where boxes or masks are known the three after them

            - Those from srg to class-gain remove the most influential patches first (mif) or the least influential
              (lif). mif and lif are areas under the target's logit; srg is lif minus mif, or the same of the
              probability; an accuracy is the share of changed predictions, over all steps; aopc is the mean fall of the
              target's probability; class-gain is srg minus that of the map for the next most probable class, by the
              target's logit: 0 for a method that ignores the class.
            - gridpg is the share of positive relevance in the right cell of a mosaic with three images of other
              classes, sampled from all of the data; where 24 samples do not give three, the image is left out.
            - completeness-error compares the sum of the map with the logit.
        removals (sequence of str, optional): How patches are removed: of zero, mean, blur, noise, noisy-linear and
            tokens. All metrics that remove patches share their passes.
        target (str, optional): The class that is explained: "predicted", or "label" for that of each image's label.
        steps (int, optional): In which patches are removed; at most the number of patches.
            Default: 28, or as many as there are patches if these are fewer
        seed (int, optional): Seed of everything that is sampled.
        limit (int, optional): How many of the images are measured, sampled by ``seed``. More can follow later.
            Default: None, all
        output (str or Path, optional): A folder that keeps what is finished, with tables, plots and a report. Killed at
            any moment, the same call goes on where it stopped; more images and more methods can follow. It refuses
            results of other settings, weights or preprocessing, but cannot compare ``forward_func`` or methods of your
            own. Default: None, nothing is kept.
        batch_size (int, optional): How many images run at once. Default: 16, on an accelerator 128.
        precision (str, optional): "float32" or "bfloat16", of passes over images that were changed. Maps are always
            made in the model's own. Default: "float32".
        processor (optional): A Hugging Face image processor. Not needed where data holds pixel values.
        forward_func (Callable, optional): Takes pixel values and returns logits (examples, classes), by running
            ``model``. Default: the model's own logits.
        show_progress (bool, optional): Whether to show a progress bar.

    Returns:
        *Evaluation*: ``records()``, ``means()`` and ``differences()`` are rows for pandas, ``to_markdown()`` is the
        report, which notebooks show, ``visualize()`` plots the means with their intervals, and ``skipped`` lists what
        was left out.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a name is not known, if the settings do not go with model or data, if nothing could be measured,
            or if ``output`` holds other things.
        OSError: if data cannot be read or ``output`` not be written to, or another run is at work there.
        RuntimeError: if the model cannot be explained; the error names the method.

    Example::

        >>> from captum_gmar import evaluate
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scenes = [load_scene(seed) for seed in range(4)]
        >>> data = [(scene.pixel_values[0], scene.labels[0], scene.masks[0]) for scene in scenes]
        >>> evaluation = evaluate(load_model(), data, ["attention-evidence", "rollout"], metrics=["relevance-mass"])
        >>> [row["method"] for row in evaluation.means()]
        ['attention-evidence', 'rollout', 'random map', 'uniform map', 'centre blob']
    """
    check_model(model)
    subject = make_subject(model, data, processor, forward_func)
    chosen = make_methods(methods_for(subject) if methods is None else methods, model, forward_func)
    settings = EvaluationSettings(
        methods=tuple(chosen),
        metrics=None if metrics is None else unique_names(metrics, "metrics"),
        removals=unique_names(removals, "removals"),
        target=target,
        steps=steps,
        seed=seed,
        limit=limit,
        batch_size=batch_size,
        precision=precision,
    )
    evaluation, _ = run_evaluation(settings, chosen, subject, workplace_of_call(output, show_progress, "evaluate"))
    if not evaluation.results:
        raise ValueError(f"data must hold measurable images, but got none: {list_reasons(evaluation.skipped)}")
    warn_of_skipped(evaluation.skipped)
    return evaluation


def run_evaluation(
    settings: EvaluationSettings, methods: Mapping[str, Method], subject: Subject, place: Workplace
) -> tuple[Evaluation, int]:
    """Measure what is not measured yet, and write the results. No process returns before they are written.

    Return them in the first process, without results in the others, and how many images were measured.
    """
    numbers = sample_numbers(len(subject.examples), settings.limit, settings.seed, settings.part)
    settings = complete_settings(settings, subject, numbers)
    depends = {**subject.fingerprints(), **settings.as_numbers_depend()}
    work = Faithfulness(settings, methods, subject, place.listener.note)
    with start_run(place, depends) as folder:
        results, seconds, skipped = _finish(Run(work.batches, folder, place, CHUNK), work, numbers)
        removals = {name: removal.name for name, removal in work.measures.removals.items()}
        names = subject.model_name, subject.data_name
        provenance = Provenance(*names, len(results), settings, removals, place.command, versions(), seconds, skipped)
        tables = summarise(results, subject.examples, provenance)
        measured = place.processes.first(lambda: _write(tables, len(results), place))
    return Evaluation(results, provenance, tables), measured


def _finish(
    run: Run, work: Faithfulness, numbers: Sequence[int]
) -> tuple[list[Result], dict[str, float], list[Skipped]]:
    """Measure all that the run does not keep yet.

    In the first process, return all results, in the order of the data, and the mean seconds of each method for a map;
    and in every process what was left out.
    """
    names = (*work.methods, *CONTROLS)  # in the order of the tables
    kept, skipped = run.finish(numbers, work.measure, names, partial(missing_methods, names))
    chosen = sorted(kept.records.keys() & {*numbers})
    measured = [number for number in chosen if not missing_methods(names, kept.records[number])]
    results = [result_of(number, kept.records[number]).only(names) for number in measured]
    if not results and run.place.processes.is_first:
        report_skipped(skipped, run.place.listener)
    return results, _mean_seconds(kept.batches, list(work.methods)), skipped


def _mean_seconds(batches: Sequence[Batch], methods: Sequence[str]) -> dict[str, float]:
    means = {}
    for name in methods:
        timed = [batch for batch in batches if name in batch.seconds]
        if timed:  # not if there was nothing to measure when it was added
            means[name] = sum(batch.seconds[name] for batch in timed) / sum(len(batch.records) for batch in timed)
    return means


def _write(tables: Tables, measured: int, place: Workplace) -> int:
    """Write the report where results are kept; return how many images were measured."""
    if tables.summaries and place.folder:
        from captum_gmar.evaluation.reports.report_files import write

        write(tables, place.folder)
    elif measured and not tables.summaries:
        place.listener.note("nothing to sum up: boxes or masks are known of none of these images")
    return measured


def methods_for(subject: Subject) -> tuple[str, ...]:
    """Return the default methods."""
    pixels = first_pixels(subject, range(len(subject.examples)))
    if pixels is None:
        return EVALUATED
    return usual_methods(EVALUATED, subject.classifier.model, subject.as_run(pixels))


def make_methods(
    methods: object, model: nn.Module, forward_func: Callable[[Tensor], Tensor] | None
) -> Mapping[str, Method]:
    """Make methods of :func:`captum_gmar.list_methods` for the model, or check the caller's own, by name."""
    if isinstance(methods, Mapping):
        return check_methods(methods, CONTROLS)
    names = map(find_method, unique_names(methods, "methods"))
    return {name: METHODS[name].load()(model, forward_func=forward_func) for name in names}
