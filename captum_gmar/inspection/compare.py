"""Several methods on one image: their maps, how faithful each is, and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_gmar.attr.catalogue import COMPARED, METHODS, STEPS, find_method
from captum_gmar.attr.methods import usual_methods
from captum_gmar.attr.patch_relevance import Method, check_methods, images_at_once, name_errors, relevance_of
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_model, patch_grid
from captum_gmar.inspection.comparison import Comparison
from captum_gmar.inspection.passes import Passes, Times, copy_counted, time_in_turns
from captum_gmar.inspection.picture import Cost, MethodResult
from captum_gmar.metrics import Blur, PerturbationCurve, Removal, control_maps, deletion, insertion
from captum_gmar.metrics._inputs import check_count, check_images, check_patch_size, patch_scores
from captum_gmar.metrics._outputs import Target, check_outputs, class_indices, target_output


def compare(
    model: nn.Module,
    pixel_values: Tensor,
    methods: Sequence[str] | Mapping[str, Method] | None = None,
    target: Target = None,
    *,
    forward_func: Callable[..., Any] | None = None,
    removal: Removal | None = None,
    steps: int | None = None,
    ig_steps: int = 50,
    softmax: bool = True,
    batch_size: int | None = None,
    repeats: int = 3,
    show_progress: bool = False,
) -> Comparison:
    """Explain one image by several methods, and measure each: how faithful its map is to the model, how long it takes,
    and how often it runs the model.

    Insertion and deletion remove patches in the same way, so that each starts where the other ends and their areas
    compare. The areas of one image say little about methods in general: take many images for that.

    Args:
        model (nn.Module): A vision transformer, used as it is, on the device where it is.
        pixel_values (Tensor): One image as the model takes it, (1, channels, height, width), of whole patches.
        methods (sequence of str, or dict, optional): Names of :func:`captum_gmar.list_methods`; or, from a name of your
            own, a Captum ``Attribution``, or a callable that takes inputs and ``target=`` and returns attributions in
            the shape of the inputs. How often a callable runs the model is not known.
            Default: those of seven of ours and two of Captum's that explain the model
        target (int, tuple, Tensor, or list, optional): The class that is explained and followed.
            Default: None, the class that the model predicts
        forward_func (Callable, optional): What is explained and followed, if not the model's logits: a callable that
            takes the inputs, runs ``model`` once and returns a tensor (examples, classes). An ``Attribution`` of your
            own explains its own.
        removal (Removal, optional): What takes patches out, for insertion and deletion alike: any of
            :mod:`captum_gmar.metrics`, or a ``captum_gmar.ablation.TokenRemoval``. Default: None, ``Blur()``.
        steps (int, optional): Of insertion and deletion; at most the number of patches.
            Default: None, 28 or the number of patches where that is less
        ig_steps (int, optional): ``n_steps`` of integrated gradients.
        softmax (bool, optional): Follow the probability after softmax over the classes. False follows what
            ``forward_func`` returns, and so does a model with one output.
        batch_size (int, optional): How many images one pass of the model may hold.
            Default: None, 16 on the CPU and 128 elsewhere
        repeats (int, optional): How often each method is run, to take the median of the times. The methods take turns,
            with a forward pass before each, so that a busy moment meets all alike. One that takes long is not run again
            after five seconds.
        show_progress (bool, optional): As in Captum: whether to show a progress bar.

    Returns:
        :class:`Comparison`: **methods** and **controls**, each with **relevance** (rows, columns), **insertion**,
        **deletion** and **cost**; ``to_markdown()``, ``records()`` and ``visualize(image)``.

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
        >>> [(each.name, each.cost.forward_passes, each.cost.backward_passes) for each in comparison.methods]
        [('gmar-l1', 1, 1), ('rollout', 1, 0), ('saliency', 1, 1)]
        >>> figure, axes = comparison.visualize(scene.image, use_pyplot=False)
    """
    check_model(model)
    _check_image(pixel_values)
    batch_size = images_at_once(pixel_values.device) if batch_size is None else batch_size
    grid = patch_grid(model, *pixel_values.shape[2:])
    steps = min(STEPS, grid.patches) if steps is None else steps
    counts = {"steps": steps, "ig_steps": ig_steps, "batch_size": batch_size, "repeats": repeats}
    for name, count in counts.items():
        check_count(count, name)
    chosen = _choose_methods(usual_methods(COMPARED, model, pixel_values) if methods is None else methods)
    patch_size = check_patch_size(grid.patch_size, *pixel_values.shape[2:])
    forward = Logits(model if forward_func is None else forward_func)
    with torch.no_grad():
        outputs = check_outputs(forward(pixel_values), 1)
    class_index, softmax = _target(outputs, target), softmax and outputs.numel() > 1
    score = target_output(outputs, None if class_index is None else torch.tensor([class_index]), 1, softmax)
    inspection = _Inspection(
        model=model,
        forward=forward,
        pixels=pixel_values.detach(),
        target=class_index,
        grid=grid,
        removal=removal or Blur(),
        softmax=softmax,
        **counts,
    )
    controls = control_maps(pixel_values, patch_size=patch_size)
    with tqdm(total=len(chosen) * (1 + repeats), disable=not show_progress, unit="turn") as bar:
        results = inspection.measure(chosen, bar.update)
    return Comparison(
        methods=tuple(results),
        controls=tuple(inspection.measure_control(name, maps) for name, maps in controls.items()),
        target=class_index,
        score=float(score),
        is_probability=softmax,
        removal=inspection.removal.name,
        steps=steps,
        device=str(pixel_values.device),
    )


@dataclass(frozen=True)
class _Inspection:
    """One prediction for one image, and how explanations of it are measured."""

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

    def measure(
        self, methods: Mapping[str, Method | None], advance: Callable[[], Any] = lambda: None
    ) -> list[MethodResult]:
        """Measure methods of one's own, or those of these names."""
        passes = {name: Passes() for name in methods}
        watched = {name: self._watch_passes(name, method, passes[name]) for name, method in methods.items()}
        calls = {name: partial(self._explain, name, method) for name, method in watched.items()}
        times, forward_seconds = time_in_turns(calls, self._run, self.pixels.device, self.repeats, advance)
        results = []
        for name in methods:
            results.append(self._result(name, passes[name], times[name], forward_seconds))
            advance()
        return results

    def measure_control(self, name: str, attributions: Tensor) -> MethodResult:
        """Measure a map that knows nothing of the model, (1, channels, height, width)."""
        relevance = patch_scores(attributions, self.grid.patch_size)[0].to(attributions.dtype)
        return MethodResult(name, relevance, *self._curves(attributions), None)

    def _watch_passes(self, name: str, method: Method | None, passes: Passes) -> Method:
        if method is None:
            return METHODS[name].load()(self.model, forward_func=passes.count(self.forward))
        return copy_counted(method, passes)

    def _explain(self, name: str, method: Method) -> Tensor:
        """Return the relevance (1, rows, columns)."""
        options: Any = {"batch_size": self.batch_size, "ig_steps": self.ig_steps}
        with name_errors(name):
            return relevance_of(method, self.model, self.pixels, self.target, **options)

    def _run(self) -> Tensor:
        with torch.no_grad():
            return self.forward(self.pixels)

    def _result(self, name: str, passes: Passes, times: Times, forward_seconds: float) -> MethodResult:
        relevance, seconds = times.returned, times.seconds
        spread = median(seconds), min(seconds), max(seconds)
        cost = Cost(*spread, forward_seconds, *passes.per_run(len(seconds)))
        return MethodResult(name, relevance[0], *self._curves(self.grid.spread_like(relevance, self.pixels)), cost)

    def _curves(self, attributions: Tensor) -> tuple[PerturbationCurve, PerturbationCurve]:
        """Compute the curves of insertion and deletion."""
        inputs = self.forward, self.pixels, attributions, self.target
        options: Any = {
            "patch_size": self.grid.patch_size,
            "steps": self.steps,
            "removal": self.removal,
            "softmax": self.softmax,
            "batch_size": self.batch_size,
        }
        return insertion(*inputs, **options), deletion(*inputs, **options)


def _check_image(pixel_values: Tensor) -> None:
    check_images(pixel_values)
    if len(pixel_values) != 1:
        raise ValueError(
            f"inputs must be one image (1, channels, height, width), but got {tuple(pixel_values.shape)}. Call "
            "`compare` for each image."
        )


def _choose_methods(methods: Any) -> dict[str, Method | None]:
    """Return the method of each name; None for those of :func:`captum_gmar.list_methods`."""
    chosen: dict[str, Method | None]
    if isinstance(methods, Mapping):
        chosen = {**check_methods(methods)}
    elif isinstance(methods, Sequence) and not isinstance(methods, str):
        chosen = dict.fromkeys(map(find_method, methods))
    else:
        raise TypeError(
            "methods must be a sequence of names, or a mapping from names to methods, "
            f"but got {methods if isinstance(methods, str) else type(methods).__name__!r}. Pass [name] for one."
        )
    if not chosen:
        raise ValueError("methods must be at least one method, but got none.")
    return chosen


def _target(outputs: Tensor, target: Target) -> int | None:
    """Return the index of the target; None for a model with one output and no target."""
    if target is None:
        return int(outputs.argmax()) if outputs.numel() > 1 else None
    index = class_indices(target, 1)
    target_output(outputs, index, 1, softmax=False)
    assert index is not None
    return int(index) % outputs.shape[-1]
