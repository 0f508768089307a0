"""Attention heads over a data set: how much each matters by several scores, and whether the scores mean anything."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_gmar.ablation.importance import HeadScore
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, RANDOM_ORDERS
from captum_gmar.evaluation.data.data_objects import given_subject
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.heads.head_results import HeadResults
from captum_gmar.evaluation.heads.head_run import HeadRun
from captum_gmar.evaluation.heads.head_settings import HeadSettings
from captum_gmar.evaluation.runs.folder import kept_in
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener, warning_listener
from captum_gmar.evaluation.runs.resumable import warn_of_skipped


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
    """
    Scores the attention heads of a model over a data set, and tests whether the scores mean anything.

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
        ablate (bool, optional): Whether heads are silenced as well, which runs the model 11 times for each order and
            image of one half: two orders for each score, and the random ones.
            Default: False
        random_orders (int, optional): How many random orders are silenced with them.
            Default: 10
        target (str or int, optional): The class that is explained: "predicted", "label" for that of each image's
            label, or for all images a class index or class name.
            Default: "predicted"
        seed (int, optional): Of everything that is drawn.
            Default: 0
        limit (int, optional): How many of the images are taken, drawn by ``seed``. More can follow later.
            Default: None, all
        output (str or Path, optional): A folder that keeps what is finished, with tables, pictures and a report. Killed
            at any moment, the same call goes on where it stopped; more images can follow, and the ablation. It is made
            if need be, and refuses results of other settings, weights or preprocessing; that ``forward_func`` and
            scores of your own are the same is yours to see to.
            Default: None, nothing is kept
        batch_size (int, optional): How many images run at once.
            Default: 4, on an accelerator 128
        processor (optional): A Hugging Face image processor, which makes pixel values of images. Not needed where data
            holds pixel values.
            Default: None
        forward_func (Callable, optional): Takes pixel values and returns logits (examples, classes), by running
            ``model``.
            Default: the model's own logits
        show_progress (bool, optional): Whether to show a progress bar.
            Default: False

    Returns:
        *HeadResults*: ``statistics``, by name of the score, hold the scores of every image, their mean and spread, and
        rank heads; ``ablation`` holds the curves. ``records()`` are rows for pandas, ``to_markdown()`` is the report,
        which notebooks show, ``visualize()`` draws the scores, and ``skipped`` lists what was left out.

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
    settings = HeadSettings(
        scores=tuple(scores),
        target=target,
        ablate=ablate,
        random_orders=random_orders,
        seed=seed,
        limit=limit,
        batch_size=batch_size,
    )
    check_model(model)
    subject = given_subject(model, data, processor, forward_func)
    listener = warning_listener(show_progress, is_kept=output is not None)
    given = scores if isinstance(scores, Mapping) else None
    command = "captum_gmar.evaluate_heads(...)"
    folder = None if output is None else Path(output)
    results = run_heads(settings, subject, folder, Processes(0, 1), listener, command, given)
    warn_of_skipped(results.skipped)
    return results


def run_heads(
    settings: HeadSettings,
    subject: Subject,
    folder: Path | None,
    processes: Processes,
    listener: Listener,
    command: str,
    scores: Mapping[str, HeadScore] | None = None,
) -> HeadResults:
    """What :func:`evaluate_heads` and the command do, in one of the processes that share the work.

    Args:
        settings: what is to be known.
        subject: model and data.
        folder: of the results, where they are to be kept.
        processes: that share the work.
        listener: told what happens on the way.
        command: what was called.
        scores: by name, in place of those that the settings name.

    Raises:
        ValueError, OSError, RuntimeError: as :func:`evaluate_heads`.
    """
    if folder is None and processes.total > 1:
        raise ValueError("several processes must go with output, a folder that they share")
    with kept_in(folder) as place:
        run = HeadRun(settings, subject, place, processes, listener, command, scores)
        return run.finish(writes_report=folder is not None)
