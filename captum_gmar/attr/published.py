"""What the released code of GMAR computes, which is not what the paper says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.rules import HeadImportance
from captum_gmar.engine._captum import TargetType
from captum_gmar.engine.backward import gradients
from captum_gmar.engine.explanation import Explanation, Plan, run_forward, run_sweep, select
from captum_gmar.engine.flags import check_finite
from captum_gmar.engine.forward import ForwardPass
from captum_gmar.engine.graph import depends
from captum_gmar.engine.interception import AttentionMode
from captum_gmar.engine.models import Logits
from captum_gmar.engine.reading import Blocks, norm_of
from captum_gmar.engine.request import Request, pixel_values
from captum_gmar.engine.rule import Importance, head_weights
from captum_gmar.metrics.inputs import with_float64

RESIDUAL = 0.25
MEAN_SHARE = 5e-5  # of the mean of R, for a residual


class PublishedGMAR(AttentionAttribution):
    r"""
    The map that the released code of GMAR gives, for comparison with numbers that were made with it. To explain a
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

    Figures quoted for GMAR that were made with that code are figures of this map.

    The released code enlarges the map bicubically to 224×224 pixels and scales that to [0, 1]; here it is scaled patch
    by patch, and a patch's value is spread over its pixels as in every other method. Relevance is in [0, 1] per
    image, its smallest value 0 and its largest 1, and means nothing beyond that order.

    Jo, Jang and Park, ICIP 2025, https://arxiv.org/abs/2504.19414, and the code published with it.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`; its layers begin with a layer norm.
        norm: of the gradient, for the head weights: "l1" or "l2".
        forward_func: what is explained, if not the model's logits.
    """

    def __init__(self, model: nn.Module, norm: str = "l1", *, forward_func: Callable[..., Any] | None = None) -> None:
        self.norm, self.rollout = HeadImportance(norm), PublishedRollout()
        super().__init__(model, Plan(self.norm, self.rollout), forward_func)

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "Published GMAR"

    def head_weights(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: object = None
    ) -> Tensor:
        """
        The weights of the heads, shared by all layers.

        Returns:
            Tensor (N, H), each row summing to 1.
        """
        ((explanation,),) = self._explain(pixel_values(inputs), Request([target], additional_forward_args))
        assert explanation.importance is not None
        return explanation.importance[0]

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        recorder = _LayerNorms()
        forward = Logits(recorder.around(self.forward_func))
        with run_forward(self.model, forward, plan, pixels, request.additional_forward_args) as (forward_pass, logits):
            targets = request.targets_for(logits.detach(), len(pixels))
            selected = [select(logits, target, request.contrast) for target in targets]
            forward_pass.check_met(self.model)
            for score in selected:
                forward_pass.check_gradient(score)
            entering = recorder.before(forward_pass)
            grads = [gradients(score, [entering], number < len(selected)) for number, score in enumerate(selected, 1)]
            explanations = [self._explained(forward_pass, gradient) for (gradient,) in grads]
        return [explanation._replace(logits=logits.detach()) for explanation in explanations]

    def _explained(self, forward_pass: ForwardPass, gradient: Tensor) -> Explanation:
        """Of the gradient (N, T, hidden) before the last attention layer."""
        check_finite(gradient, "gradient before the last attention layer")
        if len(gradient) != forward_pass.examples:  # torch's layers may take tokens first
            gradient = gradient.transpose(0, 1)
        of_patches = gradient[:, -forward_pass.grid.patches :]
        channels = of_patches.reshape(
            *of_patches.shape[:2], forward_pass.layers[-1].shape[1], -1
        )  # (N, P, H, hidden / H)
        weights = head_weights(norm_of(self.norm.norm, channels.transpose(1, 2)))  # (N, H)
        importance = [weights] * forward_pass.count
        patches = forward_pass.like.new_zeros(forward_pass.examples, forward_pass.tokens)
        patches[:, -forward_pass.grid.patches :] = 1
        relevance = run_sweep(self.rollout, forward_pass.layers, patches, importance)
        return Explanation(relevance, importance, forward_pass.grid, without_gradient=False)


@dataclass(frozen=True)
class PublishedRollout:
    """The recursion of the released code, read off at the patches that are marked, with its weights for each layer."""

    def __call__(self, relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None) -> Tensor:
        assert importance is not None
        examples, tokens = relevance.shape
        patches = int(relevance[0].count_nonzero())
        device = with_float64(relevance.device)
        identity = torch.eye(tokens, dtype=torch.float64, device=device)
        # All heads are needed for the mean of R alone, so of all but the first only the sums of columns are kept.
        first = identity[-patches:].expand(examples, -1, -1)  # (N, P, T) of the first head
        sums = identity.sum(0).expand(examples, importance[0].shape[-1], -1)  # (N, H, T)
        for index, layer in enumerate(layers):
            weights = importance[index].to(device, torch.float64)
            attention = torch.cat([block.attention.to(device, torch.float64, copy=True) for block in layer], -2)
            first = weights[:, :1, None] * (first @ attention[:, 0])
            sums = weights[..., None] * (sums[..., None, :] @ attention).squeeze(-2)
            residual = RESIDUAL * MEAN_SHARE * sums.mean((1, 2)) / tokens  # (N,)
            first = first + residual[:, None, None] * identity[-patches:]
            sums = sums + residual[:, None, None]
        maps = first.reshape(examples, tokens, patches).mean(1)
        low, high = maps.aminmax(dim=1, keepdim=True)
        scaled = torch.where(high > low, (maps - low) / (high - low), 0)
        return F.pad(scaled, (tokens - patches, 0)).to(relevance)


class _LayerNorms(AttentionMode):
    """Within the block, notes with each attention what the last layer norm before it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: Tensor | None = None
        self.attended: list[tuple[Tensor, Tensor | None]] = []  # what attention gives, and the layer norm before it

    def around(self, forward_func: Callable[..., Any]) -> Callable[..., Any]:
        """The function, run within this block."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            with self:
                return forward_func(*args, **kwargs)

        return forward

    def attend(self, *args: Any, **kwargs: Any) -> Tensor:
        attended = F.scaled_dot_product_attention(*args, **kwargs)
        self.attended.append((attended, self.latest))
        return attended

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func is F.layer_norm:
            self.latest = result
        return result

    def before(self, forward_pass: ForwardPass) -> Tensor:
        """What enters the last layer that was met (N, T, hidden), whatever attention of text or pooling came later."""
        last = forward_pass.last
        assert last is not None
        attended, normed = next(pair for pair in self.attended if depends(pair[:1], last))
        if normed is None or normed.grad_fn is None or not depends((attended,), normed.grad_fn):
            raise RuntimeError(
                "Expected a model whose layers begin with torch.nn.functional.layer_norm but met none before its "
                "attention. The released code of GMAR reads its gradient there: of other models, there is no such map."
            )
        return normed
