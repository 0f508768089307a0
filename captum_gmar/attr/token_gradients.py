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
    """A method that reads tokens and their gradients in one forward and one backward pass.

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
    r"""FullGrad+ with the model's own gradient: the mean over layers of each token times its gradient,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\partial y}{\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l. :class:`LibraFullGradPlus` is the same with LibraGrad's
    gradient.

    Limitations: relevance of tokens and biases does not sum to the logit, since attention, norms and gates are not
    linear. Values are signed, in units of the logit.

    Mehri et al., "LibraGrad", CVPR 2025, https://arxiv.org/abs/2411.16760; after Srinivas and Fleuret, "Full-Gradient
    Representation for Neural Network Visualization", NeurIPS 2019, https://arxiv.org/abs/1905.00780.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers must be in one ``nn.ModuleList`` or
            ``nn.Sequential``.
        score: output to explain: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and for a multi-label ``config``, it is the logit.
        forward_func: function to explain in place of the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is not a ``torch.nn.Module``.
        ValueError: if ``score`` has another value; when called, if the layers cannot be found.
        RuntimeError: when called, if the layers do not run over one patch grid.
    """

    name = "FullGrad+"
    rule = FullGradRule()


class LibraFullGradPlus(FullGradPlus):
    r"""Libra FullGrad+: the mean over layers of each token times its gradient, in LibraGrad's backward pass,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\tilde\partial y}{\tilde\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l, and the gradient holds attention and the denominators of norms
    and gates constant and halves products: see :mod:`captum_gmar.engine.hidden_states.libragrad`. So at every layer the
    relevance of all tokens, and of the biases above that layer, sums to the logit.

    Limitations: attention is constant, so the map does not separate a patch that others attend to from one that holds
    evidence. Prefix tokens and biases hold a part of the logit. A token of a later layer holds information of several
    patches. Values are signed, in units of the logit.

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
    receives, summed over layers,

    .. math::
        R_j = \sum_{l=0}^{L-1} \Bigl(\frac{1}{H T} \sum_h \sum_i A_{l,h}[i, j]\Bigr)
        \sum_c h_{l+1,j,c} \, \frac{\partial y}{\partial h_{l+1,j,c}}

    where :math:`h_{l+1}` are the tokens that leave layer l.

    Limitations: attention to a layer's input weights the layer's output. In the last layer, only tokens that the
    classifier reads count. Values are signed, in units of the logit.

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

    Limitations: those of :class:`AttCAT`. Values are signed, in units of the logit.

    Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR
    2025, https://arxiv.org/abs/2411.16760.

    Args and errors are those of :class:`FullGradPlus`.

    Raises:
        RuntimeError: when called, also if attention is not captured once in each layer over one patch grid, or the
            model holds a norm or gate that is not known; the message says how to register its rule.
    """

    name = "Libra AttCAT"
    rule = AttCATRule(balances=True)
