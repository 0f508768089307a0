"""The map that the released code of GMAR computes, which is not the paper's."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from captum_gmar.engine._captum import Attribution, TargetType, _format_output, _is_tuple, log_usage
from captum_gmar.engine.models.patch_grid import Logits, check_model, patch_grid
from captum_gmar.engine.request import Inputs, pixel_values


class PublishedGMAR(Attribution):
    r"""The map of GMAR's released code, for comparison with numbers from that code. To explain a prediction, use
    :class:`~captum_gmar.GMARAttribution`.

    The code differs from the paper:

    - All layers share one set of head weights. They are norms of the gradient with respect to the last attention's
      input (after its layer norm), whose channels are split into one group for each head.
    - Each head has its own product,
      :math:`R_h \leftarrow R_h (w_h A_{l,h}) + 0.25 \cdot 5 \cdot 10^{-5} \cdot \operatorname{mean}(R) \cdot I`,
      and the map comes from the first head's rows of the *patches*, not from the CLS row: these P×T numbers are
      reshaped to T maps, whose mean is taken.
    - Head weights and class therefore hardly affect the map. The first head's weight is a factor that the final scaling
      to [0, 1] removes; the other weights enter through the small mean in the residual.
    - The numbers shrink like :math:`H^{-L}`. In single precision, as released, they underflow in deep models (zeros, or
      NaN at 32 layers of 16 heads). Here they are in double precision.

    Numbers reported for GMAR from that code belong to this map. The code enlarges the map bicubically before it scales
    it; here the patches are scaled. In each image the smallest relevance is 0 and the largest 1; only their order has a
    meaning.

    Jo, Jang and Park, ICIP 2025, https://arxiv.org/abs/2504.19414, and the code published with it.

    Args:
        model: a vision transformer in evaluation mode, whose layers begin with a layer norm. It does not change.
        norm: norm of the gradient for the head weights, "l1" or "l2". Others raise ValueError.
        forward_func: function to explain in place of the model's logits.
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
        """Return the relevance (N, rows, columns) of every patch. Arguments are those of :meth:`attribute`."""
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
