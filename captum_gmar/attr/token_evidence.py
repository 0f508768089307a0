"""Token evidence, the recommended method: patches at every depth, and what prefix tokens read of them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from captum_gmar.attr.evidence import AttentionEvidence, takes_sequences, takes_volumes
from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.attr.token_rules import TokenEvidenceRule
from captum_gmar.engine.models.layers import has_several_grids
from captum_gmar.engine.models.patch_grid import frame_count
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Request


class TokenEvidence(TokenAttribution):
    r"""Token evidence: the sum of what each patch adds to the target's log-odds, in one balanced pass.

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} h_{l,j} \cdot \frac{\tilde\partial o}{\tilde\partial h_{l,j}}
        \;+\; \sum_{l=0}^{L-1} \sum_h \sum_{i \in S} A_{l,h}[i, j] \; v_{l,h,j} \cdot
        \frac{\tilde\partial o}{\tilde\partial z_{l,h,i}}
        \;+\; h_{L,j} \cdot \frac{\tilde\partial o}{\tilde\partial h_{L,j}}, \qquad r_j = R_j \Big/ \sum_k |R_k|

    where :math:`o = \log \frac{p}{1 - p}` are the target's log-odds, :math:`h_l` the tokens that enter layer l and
    :math:`h_L` those that leave the last, :math:`z_l = A_l v_l` the attention output, and S the prefix tokens (CLS,
    registers). The gradient is balanced, see :mod:`captum_gmar.engine.hidden_states.libragrad`: attention, denominators
    of norms and gates are constant, and products halved.

    Such a pass conserves relevance from layer to layer, but for biases. The tokens of each depth are therefore one
    account of the same log-odds, and the first part is the mean of these L accounts. Relevance that a prefix token has
    read is on no patch at later depths. The second part adds it, as the sum over layers of what prefix tokens read from
    each token. The third part is what the classifier reads from each token. No constant is chosen.

    With ``contrast``, the difference of the two logits is explained; of a model whose ``config`` names several labels
    at once, the logit.

    Limitations: the map does not separate a patch that others attend to from one that holds evidence, as attention is
    constant. Tokens of later layers are mixed from several patches, and relevance is counted where it was read. Signed;
    magnitudes sum to 1 with those of the prefix tokens.

    The first part, of the log-odds in place of the logit, is Libra FullGrad+: Mehri et al., "LibraGrad", CVPR 2025,
    https://arxiv.org/abs/2411.16760. The second resembles :class:`~captum_gmar.attr.evidence.AttentionEvidence`, which
    cites more. ``docs/method.md`` has its development and results.

    Models without one patch grid, such as windowed and hierarchical ones, detectors with several towers, videos and
    sounds, have no tokens to follow from layer to layer. Their map is that of
    :class:`~captum_gmar.attr.evidence.AttentionEvidence`.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        RuntimeError: when called, if attention is not captured once in each layer over one patch grid, or the model
            holds a norm or gate that is not known; the message says how to register its rule.

    Example::

        >>> from captum_gmar import TokenEvidence
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3, objects=2)
        >>> relevance = TokenEvidence(load_model()).relevance(scene.pixel_values, target=scene.labels[0])
        >>> relevance.shape, bool(relevance.min() < 0 < relevance.max())
        (torch.Size([1, 14, 14]), True)
    """

    name = "Token evidence"
    rule = TokenEvidenceRule(balances=True)

    def __init__(self, model: nn.Module, *, forward_func: Callable[..., Any] | None = None) -> None:
        super().__init__(model, score="log-odds", forward_func=forward_func)

    def _inputs(self, inputs: Tensor | tuple[Tensor, ...], *, takes_others: bool = False) -> Tensor:
        takes_others = bool(frame_count(self.model)) or takes_sequences(self.model) or takes_volumes(self.model)
        return super()._inputs(inputs, takes_others=takes_others)

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        if not has_several_grids(self.model, pixels):
            return super()._explain_batch(plan, pixels, request)
        evidence = AttentionEvidence(self.model, forward_func=self.forward_func)
        return evidence._explain_batch(evidence.plan, pixels, request)
