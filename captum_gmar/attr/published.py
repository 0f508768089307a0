"""The map that the released code of GMAR computes, which is not the paper's."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from captum_gmar.engine._captum import Attribution, TargetType, _format_output, _is_tuple, log_usage
from captum_gmar.engine.models.patch_grid import Logits, check_model, patch_grid
from captum_gmar.engine.request import Inputs, pixel_values


class PublishedGMAR(Attribution):
    r"""The map that the released code of GMAR gives, for comparison with numbers that were made with it. To explain a
    prediction, take :class:`~captum_gmar.GMARAttribution`.

    Paper and code part ways:

    - Head weights do not come from the gradient of the attention, and not layer by layer: they are the norm of the
      gradient with respect to what enters the last layer's attention (after its layer norm), whose channels are split
      into as many groups as there are heads. All layers share them.
    - Every head is multiplied out by itself,
      :math:`R_h \leftarrow R_h (w_h A_{l,h}) + 0.25 \cdot 5 \cdot 10^{-5} \cdot \operatorname{mean}(R) \cdot I`,
      and the map is read off the first head's rows of the *patches*, not off the CLS row, by viewing these P×T numbers
      as T maps and taking their mean.
    - So the head weights and the class hardly reach the map: the first head's weights are one factor, which the
      scaling to [0, 1] at the end removes. The others' enter by the mean in the residual alone, which is small.
    - The numbers shrink like :math:`H^{-L}`. In single precision, as released, they underflow in deep models (zeros, or
      NaN at 32 layers of 16 heads). Here they are double.

    Figures quoted for GMAR that were made with that code are figures of this map. The released code enlarges it
    bicubically and scales that to [0, 1]; here it is scaled patch by patch. Relevance is in [0, 1] per image, its
    smallest value 0 and its largest 1, and means nothing beyond that order.

    Jo, Jang and Park, ICIP 2025, https://arxiv.org/abs/2504.19414, and the code published with it.

    Args:
        model: a vision transformer in evaluation mode, whose layers begin with a layer norm. Nothing of it is changed.
        norm: of the gradient, for the head weights: "l1" or "l2". Others raise ValueError.
        forward_func: what is explained, if not the model's logits.
    """

    def __init__(self, model: nn.Module, norm: str = "l1", *, forward_func: Callable[..., Any] | None = None) -> None:
        check_model(model)
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm must be 'l1' or 'l2', but got {norm!r}.")
        self.model, self.norm = model, norm
        super().__init__(Logits(model if forward_func is None else forward_func))

    @classmethod
    def get_name(cls) -> str:
        """Return the name in tables and pictures."""
        return "Published GMAR"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Inputs, target: TargetType = None, additional_forward_args: object = None) -> Inputs:
        """Spread each patch's relevance evenly over its pixels and channels.

        Arguments, result and errors are those of :meth:`captum_gmar.GMARAttribution.attribute`; RuntimeError is also
        raised if the model is in training mode or has no such map.
        """
        pixels = pixel_values(inputs)
        relevance = self.relevance(pixels, target, additional_forward_args)
        attributions = patch_grid(self.model, *pixels.shape[-2:]).spread_like(relevance, pixels)
        return _format_output(_is_tuple(inputs), (attributions,))

    def relevance(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: object = None
    ) -> Tensor:
        """Return the relevance of every patch (N, rows, columns), of the same arguments as :meth:`attribute`."""
        from captum_gmar.attr.published_pass import published_rollout

        return published_rollout(*self._run(inputs, target, additional_forward_args))

    def head_weights(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: object = None
    ) -> Tensor:
        """Return the weights of the heads (N, H), shared by all layers; each row sums to 1."""
        return self._run(inputs, target, additional_forward_args)[1]

    def _run(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType, additional_forward_args: object
    ) -> tuple[Any, Tensor]:
        from captum_gmar.attr.published_pass import run_published

        forward_func, pixels = cast(Logits, self.forward_func), pixel_values(inputs)
        return run_published(self.model, forward_func, self.norm, pixels, target, additional_forward_args)
