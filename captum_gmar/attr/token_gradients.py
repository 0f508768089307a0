"""Methods that multiply the tokens between the layers by their gradient, LibraGrad's or the model's own."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.scores import plan_of_log_odds
from captum_gmar.attr.token_rules import AttCATRule, FullGradRule
from captum_gmar.engine.explain import Pass
from captum_gmar.engine.plan import Explanation, Plan, TokenRule
from captum_gmar.engine.request import Request
from captum_gmar.engine.rule import check_choice

EXPLAINED_SCORES = ("logit", "log-odds")


class TokenAttribution(AttentionAttribution):
    """A method that reads tokens and gradients of one pass forward and one backward.

    Args and errors are those of :class:`FullGradPlus`.
    """

    passes = (Pass.HIDDEN_STATES,)
    rule: ClassVar[TokenRule]

    def __init__(
        self, model: nn.Module, *, score: str = "logit", forward_func: Callable[..., Any] | None = None
    ) -> None:
        check_choice("score", score, EXPLAINED_SCORES)
        super().__init__(model, Plan(token_rule=self.rule), forward_func)
        self.score = score

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        if self.score == "log-odds":
            plan = plan_of_log_odds(plan, self.model, request)
        return super()._explain_batch(plan, pixels, request)


class FullGradPlus(TokenAttribution):
    r"""FullGrad+ without balance: the mean over layers of each token times its gradient,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\partial y}{\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l. It is what :class:`LibraFullGradPlus` is compared with.

    Limitations: of a transformer this is not complete. Relevance of the tokens and of the biases does not sum
    to the logit, as attention, norms and gates are no linear functions. Signed, in units of the logit.

    Mehri et al., "LibraGrad", CVPR 2025, https://arxiv.org/abs/2411.16760; after Srinivas and Fleuret, "Full-Gradient
    Representation for Neural Network Visualization", NeurIPS 2019, https://arxiv.org/abs/1905.00780.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and of a model whose ``config`` names several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if the score is none of these; when called, if the layers cannot be found.
        RuntimeError: when called, if the layers do not run over one patch grid.
    """

    name = "FullGrad+"
    rule = FullGradRule()


class LibraFullGradPlus(FullGradPlus):
    r"""Libra FullGrad+: the mean over layers of each token times its gradient, in LibraGrad's backward pass,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\tilde\partial y}{\tilde\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l, and the gradient holds attention, the denominators of norms and
    gates constant and halves products: see :mod:`captum_gmar.engine.hidden_states.libragrad`. So at every layer the
    relevance of all tokens, and what the biases above it give, sum to the logit.

    Limitations: what is held constant gets no share, so a patch that is relevant because others attend to it
    is not told from one that is relevant by what it holds; prefix tokens and biases hold a part of the logit that no
    patch gets; and tokens of later layers have been mixed from several patches. Signed, in units of the logit.

    Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR
    2025, https://arxiv.org/abs/2411.16760.

    Args and errors are those of :class:`FullGradPlus`.

    Raises:
        RuntimeError: when called, also if the model holds a norm or gate that is not known; the message says how to
            register its rule.

    Example::

        >>> from captum_gmar import LibraFullGradPlus
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3)
        >>> relevance = LibraFullGradPlus(load_model(), score="log-odds").relevance(scene.pixel_values, scene.labels[0])
        >>> relevance.shape
        torch.Size([1, 14, 14])
    """

    name = "Libra FullGrad+"
    rule = FullGradRule(balances=True)


class AttCAT(TokenAttribution):
    r"""AttCAT, attentive class activation tokens: each token times its gradient, weighted by the attention that it
    gets, summed over layers,

    .. math::
        R_j = \sum_{l=0}^{L-1} \Bigl(\frac{1}{H T} \sum_h \sum_i A_{l,h}[i, j]\Bigr)
        \sum_c h_{l+1,j,c} \, \frac{\partial y}{\partial h_{l+1,j,c}}

    where :math:`h_{l+1}` are the tokens that leave layer l.

    Limitations: attention weighs what a token holds after the layer, though it was paid to what it held
    before; and of the last layer only tokens count that the classifier reads. Signed, in units of the logit.

    Qiang et al., "AttCAT: Explaining Transformers via Attentive Class Activation Tokens", NeurIPS 2022.

    Args and errors are those of :class:`FullGradPlus`.

    Raises:
        RuntimeError: when called, also if attention is not captured once in each layer over one patch grid.
    """

    name = "AttCAT"
    rule = AttCATRule()


class LibraAttCAT(AttCAT):
    r"""Libra AttCAT: :class:`AttCAT` in LibraGrad's backward pass, see
    :mod:`captum_gmar.engine.hidden_states.libragrad`.

    Limitations: those of :class:`AttCAT`. Signed, in units of the logit.

    Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR
    2025, https://arxiv.org/abs/2411.16760.

    Args and errors are those of :class:`FullGradPlus`.

    Raises:
        RuntimeError: when called, also if attention is not captured once in each layer over one patch grid, or the
            model holds a norm or gate that is not known; the message says how to register its rule.
    """

    name = "Libra AttCAT"
    rule = AttCATRule(balances=True)
