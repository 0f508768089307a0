"""Several methods on one image: their maps, how faithful each is, and what it costs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import captum.attr
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_gmar.attr.catalogue import COMPARED, METHODS, find_method
from captum_gmar.attr.patch_relevance import Method, attributions_of, images_at_once, naming, relevance_of, summed
from captum_gmar.engine._captum import Attribution
from captum_gmar.engine.models import Logits, PatchGrid, check_model, patch_grid
from captum_gmar.inspection.comparison import Compared, Comparison, Convergence, Cost
from captum_gmar.inspection.passes import Passes, watched_copy
from captum_gmar.metrics import Blur, PerturbationCurve, Removal, control_maps, deletion, insertion
from captum_gmar.metrics.inputs import check_count, check_images, check_patch_size
from captum_gmar.metrics.outputs import Target, check_outputs, class_indices, followed

ENOUGH_SECONDS = 5.0  # after which a method is not run again to time it


def compare(
    model: nn.Module,
    pixel_values: Tensor,
    methods: Sequence[str] | Mapping[str, Method] = COMPARED,
    target: Target = None,
    *,
    forward_func: Callable[..., Any] | None = None,
    removal: Removal | None = None,
    steps: int = 28,
    ig_steps: int = 50,
    softmax: bool = True,
    batch_size: int | None = None,
    repeats: int = 3,
    show_progress: bool = False,
) -> Comparison:
    """
    Explains one image by several methods, and measures each: how faithful its map is to the model, how long it takes,
    and how often it runs the model.

    Insertion and deletion remove patches in the same way, so that each starts where the other ends and their areas
    compare. The areas of one image say little about methods in general: take many images for that.

    Args:
        model (nn.Module): A vision transformer, used as it is, on the device where it is.
        pixel_values (Tensor): One image as the model takes it, (1, channels, height, width), of whole patches.
        methods (sequence of str, or dict, optional): Names of :func:`captum_gmar.methods`; or, from a name of your own,
            a Captum ``Attribution``, or a callable that takes inputs and ``target=`` and returns attributions in the
            shape of the inputs. How often a callable runs the model is not known.
            Default: six of ours and two of Captum's
        target (int, tuple, Tensor, or list, optional): The class that is explained and followed.
            Default: None, the class that the model predicts
        forward_func (Callable, optional): What is explained and followed, if not the model's logits: a callable that
            takes the inputs, runs ``model`` once and returns a tensor (examples, classes). An ``Attribution`` of your
            own explains its own.
            Default: None
        removal (Removal, optional): What takes patches out, for insertion and deletion alike: any of
            :mod:`captum_gmar.metrics`, or a ``captum_gmar.token_removal.TokenRemoval``.
            Default: None, ``Blur()``
        steps (int, optional): Of insertion and deletion; at most the number of patches.
            Default: 28
        ig_steps (int, optional): ``n_steps`` of integrated gradients.
            Default: 50
        softmax (bool, optional): Follow the probability after softmax over the classes. False follows what
            ``forward_func`` returns, and so does a model with one output.
            Default: True
        batch_size (int, optional): How many images one pass of the model may hold.
            Default: None, 16 on the CPU and 128 elsewhere
        repeats (int, optional): How often each method is run, to take the median of the times. One that takes long is
            not run again after five seconds.
            Default: 3
        show_progress (bool, optional): As in Captum: whether to show a progress bar.
            Default: False

    Returns:
        :class:`Comparison`: **methods** and **controls**, each with **relevance** (rows, columns), **insertion**,
        **deletion**, **cost** and **convergence**; ``to_markdown()``, ``records()`` and ``visualize(image)``.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if there is more than one image, a method has no such name, the target is no class, the image is not
            of whole patches, or a number is out of its range.
        FloatingPointError: if the model's output is NaN.
        RuntimeError: if a method cannot explain this; the message begins with its name.

    Example::

        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.inspection.compare import compare
        >>> model, scene = load_model(), load_scene(3)
        >>> comparison = compare(model, scene.pixel_values, ["gmar-l1", "rollout", "saliency"], steps=7)
        >>> [(own.name, own.cost.forward_passes, own.cost.backward_passes) for own in comparison.methods]
        [('gmar-l1', 1, 1), ('rollout', 1, 0), ('saliency', 1, 1)]
        >>> figure, axes = comparison.visualize(scene.image, use_pyplot=False)
    """
    check_model(model)
    _check_image(pixel_values)
    if batch_size is None:
        batch_size = images_at_once(pixel_values.device)
    counts = {"steps": steps, "ig_steps": ig_steps, "batch_size": batch_size, "repeats": repeats}
    for name, count in counts.items():
        check_count(count, name)
    chosen = _chosen(methods)
    grid = patch_grid(model, *pixel_values.shape[2:])
    patch_size = check_patch_size((grid.patch_height, grid.patch_width), *pixel_values.shape[2:])
    forward = Logits(model if forward_func is None else forward_func)
    with torch.no_grad():
        outputs = check_outputs(forward(pixel_values), 1)
    explained, softmax = _target(outputs, target), softmax and outputs.numel() > 1
    score = followed(outputs, None if explained is None else torch.tensor([explained]), 1, softmax)
    image = _Image(
        model=model,
        forward=forward,
        pixels=pixel_values.detach(),
        target=explained,
        grid=grid,
        removal=removal or Blur(),
        softmax=softmax,
        **counts,
    )
    controls = [image.control(*control) for control in control_maps(pixel_values, patch_size=patch_size).items()]
    shown = tqdm(chosen.items(), disable=not show_progress, unit="method")
    return Comparison(
        methods=tuple(image.compared(name, method) for name, method in shown),
        controls=tuple(controls),
        target=explained,
        score=float(score),
        is_probability=softmax,
        removal=image.removal.name,
        steps=steps,
        ig_steps=ig_steps,
        device=str(pixel_values.device),
    )


@dataclass(frozen=True)
class _Image:
    """One image, and what is asked of every method."""

    model: nn.Module
    forward: Callable[..., Tensor]
    pixels: Tensor  # (1, channels, height, width)
    target: int | None
    grid: PatchGrid
    removal: Removal
    softmax: bool
    steps: int
    ig_steps: int
    batch_size: int
    repeats: int

    def compared(self, name: str, method: Method | None) -> Compared:
        """Of a method, or of that of this name of ours or Captum's."""
        passes = Passes()
        if method is None:
            method = METHODS[name].load()(self.model, forward_func=passes.counted(self.forward))
        else:
            method = watched_copy(method, passes)
        with naming(name):
            (relevance, attributions), taken, forward_taken = self._timed(partial(self._explain, method))
        cost = Cost(statistics.median(taken), statistics.median(forward_taken), *passes.of_one(len(taken)))
        convergence = None if attributions is None else self._convergence(method, attributions)
        curves = self._curves(self.grid.spread_like(relevance, self.pixels))
        return Compared(name, relevance[0], *curves, cost, convergence)

    def control(self, name: str, attributions: Tensor) -> Compared:
        return Compared(name, self.grid.sums(attributions)[0], *self._curves(attributions), None, None)

    def _explain(self, method: Method) -> tuple[Tensor, Tensor | None]:
        """The relevance (1, rows, columns) and, of integrated gradients, the attributions."""
        asked: Any = {"batch_size": self.batch_size, "ig_steps": self.ig_steps}
        if not isinstance(method, captum.attr.IntegratedGradients):
            return relevance_of(method, self.model, self.pixels, self.target, **asked), None
        attributions = attributions_of(method, self.pixels, self.target, **asked)
        return summed(method, self.model, attributions), attributions

    def _convergence(self, method: Any, attributions: Tensor) -> Convergence:
        delta = float(method.compute_convergence_delta(attributions, 0, self.pixels, target=self.target))
        return Convergence(delta, float(attributions.sum()) - delta)

    def _curves(self, attributions: Tensor) -> tuple[PerturbationCurve, PerturbationCurve]:
        """Of insertion and deletion."""
        asked = self.forward, self.pixels, attributions, self.target
        options: Any = {
            "patch_size": (self.grid.patch_height, self.grid.patch_width),
            "steps": self.steps,
            "removal": self.removal,
            "softmax": self.softmax,
            "batch_size": self.batch_size,
        }
        return insertion(*asked, **options), deletion(*asked, **options)

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, list[float], list[float]]:
        """What the last call returns, the seconds that each took, and those of a forward pass right before each."""
        taken: list[float] = []
        forward_taken: list[float] = []
        while len(taken) < self.repeats and sum(taken) < ENOUGH_SECONDS:
            with torch.no_grad():
                forward_taken.append(self._seconds(lambda: self.forward(self.pixels))[1])
            result, seconds = self._seconds(call)
            taken.append(seconds)
        return result, taken, forward_taken

    def _seconds(self, call: Callable[[], Any]) -> tuple[Any, float]:
        self._finish()
        begin = time.perf_counter()
        result = call()
        self._finish()
        return result, time.perf_counter() - begin

    def _finish(self) -> None:
        """Waits for what the device still has to do."""
        if self.pixels.device.type != "cpu":
            torch.accelerator.synchronize(self.pixels.device)


def _check_image(pixel_values: Tensor) -> None:
    check_images(pixel_values)
    if len(pixel_values) != 1:
        raise ValueError(
            f"Expected one image (1, channels, height, width) but got {tuple(pixel_values.shape)}. Call `compare` for "
            "each image."
        )


def _chosen(methods: Any) -> dict[str, Method | None]:
    """From each name to the method; None for those of :func:`captum_gmar.methods`."""
    chosen: dict[str, Method | None]
    if isinstance(methods, Mapping):
        chosen = {_own_name(name): _checked(name, method) for name, method in methods.items()}
    elif isinstance(methods, Sequence) and not isinstance(methods, str):
        chosen = dict.fromkeys(map(_known, methods))
    else:
        raise TypeError(
            "methods must be a sequence of names, or a mapping from names to methods. "
            f"Got {methods if isinstance(methods, str) else type(methods).__name__!r} instead. Of one method, pass "
            "[name]."
        )
    if not chosen:
        raise ValueError("methods must be at least one method. Got none instead.")
    return chosen


def _known(name: object) -> str:
    try:
        return find_method(name)
    except ValueError as error:
        raise ValueError(f"{error} Methods of your own are passed as a mapping from names to them.") from None


def _own_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"methods must be a mapping from names. Got the key {name!r} instead.")
    return name


def _checked(name: str, method: object) -> Method:
    if isinstance(method, Attribution) or (callable(method) and not isinstance(method, type | nn.Module)):
        return method
    raise TypeError(
        f"methods[{name!r}] must be a Captum Attribution, or a callable that takes inputs and target= and returns "
        f"attributions. Got {method!r} instead. Classes are called on the model first."
    )


def _target(outputs: Tensor, target: Target) -> int | None:
    """The class index that is meant; None for a model with one output and no target."""
    if target is None:
        return int(outputs.argmax()) if outputs.numel() > 1 else None
    index = class_indices(target, 1)
    followed(outputs, index, 1, softmax=False)
    assert index is not None
    return int(index) % outputs.shape[-1]
