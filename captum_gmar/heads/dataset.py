"""A score of the heads, taken over a data set."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from captum_gmar.heads.moments import Gathered
from captum_gmar.heads.statistics import HeadStatistics
from captum_gmar.metrics.outputs import Target

Score = Callable[..., Tensor]  # (inputs, target=...) → (N, layers, heads)


def head_importance(
    score: Score, batches: Iterable[tuple[Tensor, Target]], *, keep: bool = False, progress: bool = False
) -> HeadStatistics:
    """
    The mean and spread of a score of the heads over a data set, as a whole and by class.

    Batches are taken one by one, and their sizes do not matter: the mean is that of all examples.

    Args:
        score (Callable): ``score(inputs, target=...)`` returns (N, layers, heads), for example
            ``GMARAttribution(model).head_importance`` or ``functools.partial(gradient_of_mask, model)``.
        batches (Iterable): Pairs of inputs, on the device of the model, and targets, for example a ``DataLoader``.
            Targets come in Captum's forms; None leaves out statistics by class.
        keep (bool, optional): Whether the result holds the importance of every example.
            Default: False
        progress (bool, optional): Whether a progress bar is shown.
            Default: False

    Returns:
        HeadStatistics: See there.

    Raises:
        TypeError: if ``score`` cannot be called or returns no tensor, or a batch is no pair.
        ValueError: if there is no batch, or what ``score`` returns is not finite or has another shape than that or than
            before.

    Example::

        >>> import torch
        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.heads import head_importance
        >>> model, scenes = load_model(), [load_scene(seed) for seed in range(4)]
        >>> batches = [(scene.pixel_values, list(scene.labels)) for scene in scenes]
        >>> statistics = head_importance(GMARAttribution(model).head_importance, batches)
        >>> statistics.mean.shape, statistics.examples
        (torch.Size([6, 4]), 4)
        >>> sum(len(heads) for heads in statistics.least(5).values())
        5
    """
    if not callable(score):
        raise TypeError(
            f"score must be callable, such as GMARAttribution(model).head_importance. Got {type(score).__name__} "
            "instead."
        )
    gathered = Gathered(keep)
    for inputs, targets in pairs(batches, progress):
        importance = score(inputs, target=targets)
        if not isinstance(importance, Tensor) or importance.shape[:1] != inputs.shape[:1]:
            found = tuple(importance.shape) if isinstance(importance, Tensor) else type(importance).__name__
            raise TypeError(
                f"score must return a tensor (examples, layers, heads) for {len(inputs)} examples. Got {found} instead."
            )
        gathered.add(importance, targets)
    return HeadStatistics.of(gathered)


def pairs(batches: Iterable[tuple[Tensor, Target]], progress: bool = False) -> Iterator[tuple[Tensor, Target]]:
    """The batches, each checked to be inputs and targets."""
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(batches, unit="batch")
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
            raise TypeError(
                f"batches must be pairs of an inputs tensor and targets. Got {type(batch).__name__} instead. Pass "
                '((batch["pixel_values"], batch["labels"]) for batch in loader) for batches that are dictionaries.'
            )
        yield batch[0], batch[1]
