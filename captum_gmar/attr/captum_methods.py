"""Captum's own methods, made ready to call on a vision transformer, to compare with.

They are Captum's classes and give Captum's numbers, but take the logits out of a Hugging Face output and arguments in
the order of our methods, know the patches, and return detached attributions of the inputs' dtype.
"""

from collections.abc import Callable
from copy import copy
from inspect import signature
from typing import Any, ClassVar, NoReturn, cast

import captum.attr
import torch
from torch import Tensor, nn

from captum_gmar.engine._captum import Attribution, TargetType, _format_output, _is_tuple, _run_forward, log_usage
from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.models.attention_backend import force_eager
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, check_model, check_rows, patch_grid
from captum_gmar.engine.request import leaf, pixel_values, plain_target
from captum_gmar.engine.targets import check_target


class _Ready(Attribution):
    """Our part of each class; Captum's comes second among the bases.

    ``model`` and ``forward_func`` are those of our methods, ``options`` of the constructor of Captum's class, for
    example ``multiply_by_inputs``.
    """

    takes_others: ClassVar[bool] = False  # whether also videos and spectrograms, as what asks nothing of patches does

    def __init__(self, model: nn.Module, forward_func: Callable[..., Any] | None = None, **options: Any) -> None:
        check_model(model)
        self.model = model
        super().__init__(Logits(model if forward_func is None else forward_func), **options)

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        **options: Any,
    ) -> Any:
        """Explain the target's logit of every example, in the shape, dtype and device of the inputs, detached.

        Arguments and errors are those of :meth:`captum_gmar.GMARAttribution.attribute`; methods that ask nothing of
        patches take videos (N, frames, channels, height, width) and spectrograms as well. ``options`` are those of the
        ``attribute`` of Captum's class, by name: with ``return_convergence_delta`` the delta is returned too.
        Perturbation methods raise ValueError if there are several outputs per example and no target.
        """
        is_inputs_tuple = _is_tuple(inputs)
        pixels = pixel_values(inputs, takes_others=self.takes_others)
        target = plain_target(target)
        if isinstance(target, Tensor):
            target = target.to(pixels.device)  # where Captum needs it; labels of a data loader are on the CPU
        with torch.inference_mode(False):
            # Captum warns about inputs without grad, and would hand on the graph of those with grad.
            result = self._checking(target, len(pixels))._attribute_pixels(
                leaf(pixels), target=target, additional_forward_args=additional_forward_args, **options
            )
        attributions, *delta = result if isinstance(result, tuple) else (result,)
        formatted = _format_output(is_inputs_tuple, (attributions.detach().to(pixels.dtype),))
        return (formatted, *delta) if delta else formatted

    def attribute_future(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the call, as most of Captum's own methods do."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _checking(self, target: TargetType, examples: int) -> "_Ready":
        """Return the same method, with a forward_func that checks its outputs."""

        def forward(inputs: Tensor, *args: Any) -> Tensor:
            outputs: Tensor = self.forward_func(inputs, *args)
            check_rows(outputs, len(inputs))
            check_target((examples, *outputs.shape[1:]), target)
            return outputs

        checking = copy(self)
        checking.forward_func = forward
        return checking

    def _attribute_pixels(self, pixels: Tensor, **options: Any) -> Any:
        captums = super().attribute.__wrapped__  # type: ignore[attr-defined]
        return captums(self, pixels, **{**self._defaults(pixels), **options})

    def _defaults(self, pixels: Tensor) -> dict[str, Any]:
        """Return options of Captum's ``attribute`` for these inputs, where none are passed."""
        return {}


class Saliency(_Ready, captum.attr.Saliency):
    """The gradient's absolute value per pixel and channel; signed with ``abs=False``.

    Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013, https://arxiv.org/abs/1312.6034.
    """

    takes_others = True


class InputXGradient(_Ready, captum.attr.InputXGradient):
    """The gradient times the pixel value.

    Shrikumar et al., "Not Just a Black Box", 2016, https://arxiv.org/abs/1605.01713.
    """

    takes_others = True


class IntegratedGradients(_Ready, captum.attr.IntegratedGradients):
    """The mean gradient along a straight line from ``baselines`` (zero: the mean colour of normalised pixel values) to
    the image, times their difference. It sums to the difference of the two logits.

    All ``n_steps`` (50) of all examples run as one batch, unless ``internal_batch_size`` is passed.

    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, https://arxiv.org/abs/1703.01365.
    """

    takes_others = True


class GradientShap(_Ready, captum.attr.GradientShap):
    """The expected gradient between the image and baselines sampled from ``baselines``, at ``n_samples`` (5) random
    points, times their difference.

    Without ``baselines``, zero is the only one: the mean colour of normalised pixel values. Captum samples baselines
    and points from NumPy's global random state, and noise (``stdevs``) from torch's. To get the same numbers again,
    seed both: ``numpy.random.seed(0); torch.manual_seed(0)``.

    Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017,
    https://arxiv.org/abs/1705.07874.
    """

    takes_others = True

    def _defaults(self, pixels: Tensor) -> dict[str, Any]:
        return {"baselines": torch.zeros_like(pixels[:1])}


class _Perturbing(_Ready):
    """Our part of Captum's perturbation methods, which without target explain all outputs of all examples."""

    def _attribute_pixels(self, pixels: Tensor, **options: Any) -> Any:
        if options["target"] is None:
            with torch.no_grad():
                outputs = cast(
                    Tensor, _run_forward(self.forward_func, pixels, None, options["additional_forward_args"])
                )
            if outputs.numel() != len(pixels):
                raise ValueError(
                    "forward_func must return one output per example where no target is given, but got "
                    f"{tuple(outputs.shape)} for {len(pixels)} examples. Pass target=, the class to explain."
                )
        return super()._attribute_pixels(pixels, **options)


class PatchOcclusion(_Perturbing, captum.attr.Occlusion):
    """The decrease of the logit when a window the size of a patch is replaced by ``baselines`` (zero: the mean colour
    of normalised pixel values).

    The window moves patch by patch, over all channels at once, and each of its pixels gets the whole difference. Where
    patches do not cover the image, the last windows extend into the margin. Each window costs a forward pass;
    ``perturbations_per_eval`` of them run as one batch. For larger or overlapping windows pass
    ``sliding_window_shapes`` and ``strides``, (channels, height, width) each.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014,
    https://arxiv.org/abs/1311.2901.
    """

    def _defaults(self, pixels: Tensor) -> dict[str, Any]:
        grid = patch_grid(self.model, *pixels.shape[-2:])
        window = (pixels.shape[1], *grid.patch_size)
        return {"sliding_window_shapes": window, "strides": window}


class PatchAblation(_Perturbing, captum.attr.FeatureAblation):
    """The decrease of the logit when a patch is replaced by ``baselines`` (zero: the mean colour of normalised pixel
    values).

    Every pixel of the patch gets the whole difference. The margin that no patch covers is one more feature. Without a
    margin the result is that of :class:`PatchOcclusion`. ``feature_mask``, (1, 1, height, width), groups patches into
    other features.
    """

    def _defaults(self, pixels: Tensor) -> dict[str, Any]:
        grid = patch_grid(self.model, *pixels.shape[-2:])
        return {"feature_mask": _patch_indices(grid, pixels)}

    def _attribute_pixels(self, pixels: Tensor, **options: Any) -> Any:
        unknown = options.keys() - signature(captum.attr.FeatureAblation.attribute).parameters.keys()
        if unknown:  # which Captum would leave out
            raise TypeError(f"options must be those of captum.attr.FeatureAblation, but got {', '.join(unknown)}.")
        return super()._attribute_pixels(pixels, **options)


def _patch_indices(grid: PatchGrid, pixels: Tensor) -> Tensor:
    """Return the index of each pixel's patch (1, channels, height, width), and as last index the margin's."""
    row = torch.arange(pixels.shape[-2], device=pixels.device)[:, None] // grid.patch_height
    column = torch.arange(pixels.shape[-1], device=pixels.device) // grid.patch_width
    covered = (row < grid.rows) & (column < grid.columns)
    return torch.where(covered, row * grid.columns + column, grid.patches).expand_as(pixels[:1])


class TokenGradCam(_Ready, captum.attr.LayerGradCam):
    """Grad-CAM on the patch tokens that enter the last layer, laid out on the patch grid.

    With token :math:`x_p` of patch p, out of P, and logit y,

    .. math:: r_p = \\mathrm{ReLU}\\Big(\\sum_c x_{p,c} \\cdot \\frac{1}{P} \\sum_q \\frac{∂y}{∂x_{q,c}}\\Big)

    As in our methods, a patch's value is spread evenly over its pixels and channels. The last layer's output would not
    do: where the classifier reads the CLS token alone, the other tokens have no gradient. ``relu_attributions=False``,
    Captum's default, also shows evidence against the class.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
    https://arxiv.org/abs/1610.02391, which uses the output of the last convolution. ``attribute`` raises an error if
    the last layer is not found, or does not run once over the patch tokens.
    """

    def __init__(self, model: nn.Module, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, forward_func, layer=nn.Identity())

    @classmethod
    def get_name(cls) -> str:
        """Return the method's name in tables and pictures."""
        return "Token Grad-CAM"

    def _attribute_pixels(self, pixels: Tensor, **options: Any) -> Tensor:
        grid = patch_grid(self.model, *pixels.shape[-2:])
        through_layer = _ThroughImage(grid, self.layer)
        last = transformer_layers(self.model)[-1]
        with force_eager(), hook_modules([last], through_layer):
            relevance = super()._attribute_pixels(
                pixels, **{"relu_attributions": True, **options}
            )  # (N, 1, rows, col.)
        return grid.spread_like(relevance.squeeze(1), pixels)


class _ThroughImage:
    """A forward pre-hook that passes the patch tokens among the arguments through ``layer`` as an image."""

    def __init__(self, grid: PatchGrid, layer: nn.Module) -> None:
        self.grid = grid
        self.layer = layer
        self.runs = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        arguments: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        name = next((name for name, value in arguments.items() if self._is_over_grid(value)), None)
        self.runs += 1
        if name is None or self.runs > 1:
            raise RuntimeError(
                f"{type(module).__name__}, the last layer, must run once over {self.grid.patches} patch tokens, a "
                f"{self.grid.rows}x{self.grid.columns} grid, but {'gets none' if name is None else 'runs again'}. "
                "Resize the images to the model's size, and run the model once in forward_func, without gradient "
                "checkpointing."
            )
        tokens = arguments[name]
        prefix, patches = tokens[:, : -self.grid.patches], tokens[:, -self.grid.patches :]
        image = patches.mT.reshape(len(tokens), -1, self.grid.rows, self.grid.columns)  # (N, hidden, rows, columns)
        arguments[name] = torch.cat([prefix, self.layer(image).flatten(2).mT], 1)
        return tuple(arguments[i] for i in range(len(args))), {name: arguments[name] for name in kwargs}

    def _is_over_grid(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.dim() == 3 and self.grid.prefix_tokens(value.shape[1]) is not None
