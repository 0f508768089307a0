"""Methods that multiply the tokens between the layers by their gradient, a balanced one or the model's own."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.evidence import has_several_labels, log_odds
from captum_gmar.engine._captum import _format_additional_forward_args
from captum_gmar.engine.finite_checks import Flags
from captum_gmar.engine.hidden_states.capture import LayerTokens, read_layers
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import Request
from captum_gmar.engine.rule import check_choice
from captum_gmar.engine.targets import select

EXPLAINED_SCORES = ("logit", "log-odds")


class TokenAttribution(AttentionAttribution):
    """A method that reads tokens and gradients of one pass forward and one backward.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained, "logit" or "log-odds" of the target against all other classes. With ``contrast``, and
            of a model whose ``config`` tells of several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits.
    """

    balances: ClassVar[bool] = False  # the backward pass

    def __init__(
        self, model: nn.Module, *, score: str = "logit", forward_func: Callable[..., Any] | None = None
    ) -> None:
        check_choice("score", score, EXPLAINED_SCORES)
        super().__init__(model, Plan(), forward_func)
        self.score = score

    def _explain(self, pixels: Tensor, request: Request, plan: Plan | None = None) -> list[list[Explanation]]:
        request.check(len(pixels))
        return super()._explain(pixels, request, plan)

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        arguments = _format_additional_forward_args(request.additional_forward_args) or ()
        layers = read_layers(self.model, Logits(self.forward_func), pixels, arguments, self.balances)
        takes_log_odds = self.score == "log-odds" and request.contrast is None and not has_several_labels(self.model)
        scores = log_odds(layers.logits) if takes_log_odds else layers.logits
        targets = request.targets_for(layers.logits.detach(), len(pixels))
        flags = [Flags() for _ in targets]
        selected = [select(scores, t, request.contrast, f) for t, f in zip(targets, flags, strict=True)]
        tensors = self._differentiated(layers)
        return [
            self._explained(layers, layers.gradients(score, tensors, number < len(selected)), flags[number - 1])
            for number, score in enumerate(selected, 1)
        ]

    def _explained(self, layers: LayerTokens, gradients: Sequence[Tensor], flags: Flags) -> Explanation:
        with without_autocast(layers.logits.device.type):
            relevance = self._relevance(layers, gradients)
        for gradient in gradients:
            flags.finite(gradient, "gradient of the tokens")
            flags.add(layers.has_gradient(gradient))
        flags.finite(relevance, "relevance")
        without_gradient = not all(flags.look())
        return Explanation(relevance, None, layers.grid, without_gradient, layers.logits.detach())

    @abstractmethod
    def _differentiated(self, layers: LayerTokens) -> Sequence[Tensor]:
        """Of what the gradient is taken."""

    @abstractmethod
    def _relevance(self, layers: LayerTokens, gradients: Sequence[Tensor]) -> Tensor:
        """(N, T), of the gradient of each of these."""


class FullGradPlus(TokenAttribution):
    r"""
    FullGrad+ without balance: the mean over layers of each token times its gradient,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\partial y}{\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l. It is what :class:`LibraFullGradPlus` is compared with.

    What it does not mean: of a transformer this is not complete. Relevance of the tokens and of the biases does not sum
    to the logit, as attention, norms and gates are no linear functions. Signed, in units of the logit.

    Mehri et al., "LibraGrad", CVPR 2025, https://arxiv.org/abs/2411.16760; after Srinivas and Fleuret, "Full-Gradient
    Representation for Neural Network Visualization", NeurIPS 2019, https://arxiv.org/abs/1905.00780.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and of a model whose ``config`` tells of several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if the score is none of these; when called, if the layers cannot be told.
        RuntimeError: when called, if the layers do not run over one patch grid.
    """

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "FullGrad+"

    def _differentiated(self, layers: LayerTokens) -> Sequence[Tensor]:
        return layers.tokens[:-1]

    def _relevance(self, layers: LayerTokens, gradients: Sequence[Tensor]) -> Tensor:
        of_layers = map(layers.over_channels, layers.tokens[:-1], gradients)
        return torch.stack(list(of_layers)).mean(0)


class LibraFullGradPlus(FullGradPlus):
    r"""
    Libra FullGrad+: the mean over layers of each token times its gradient, in a balanced backward pass,

    .. math::
        R_j = \frac{1}{L} \sum_{l=0}^{L-1} \sum_c h_{l,j,c} \, \frac{\tilde\partial y}{\tilde\partial h_{l,j,c}}

    where :math:`h_l` are the tokens that enter layer l, and the gradient holds attention, the denominators of norms and
    gates constant and halves products: see :mod:`captum_gmar.engine.hidden_states.libragrad`. So at every layer the
    relevance of all tokens, and what the biases above it give, sum to the logit.

    What it does not mean: what is held constant gets no share, so a patch that is relevant because others attend to it
    is not told from one that is relevant by what it holds; prefix tokens and biases hold a part of the logit that no
    patch gets; and tokens of later layers have been mixed from several patches. Signed, in units of the logit.

    Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR
    2025, https://arxiv.org/abs/2411.16760.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and of a model whose ``config`` tells of several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if the score is none of these; when called, if the layers cannot be told.
        RuntimeError: when called, if the layers do not run over one patch grid, or the model holds a norm or gate that
            is not known; the message says how to register its rule.

    Example::

        >>> from captum_gmar import LibraFullGradPlus
        >>> from captum_gmar.demo import load_model, load_scene
        >>> scene = load_scene(3)
        >>> relevance = LibraFullGradPlus(load_model(), score="log-odds").relevance(scene.pixel_values, scene.labels[0])
        >>> relevance.shape
        torch.Size([1, 14, 14])
    """

    balances = True

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "Libra FullGrad+"


class AttCAT(TokenAttribution):
    r"""
    AttCAT, attentive class activation tokens: each token times its gradient, weighted by the attention that it gets,
    summed over layers,

    .. math::
        R_j = \sum_{l=0}^{L-1} \Bigl(\frac{1}{H T} \sum_h \sum_i A_{l,h}[i, j]\Bigr)
        \sum_c h_{l+1,j,c} \, \frac{\partial y}{\partial h_{l+1,j,c}}

    where :math:`h_{l+1}` are the tokens that leave layer l.

    What it does not mean: attention weighs what a token holds after the layer, though it was paid to what it held
    before; and of the last layer only tokens count that the classifier reads. Signed, in units of the logit.

    Qiang et al., "AttCAT: Explaining Transformers via Attentive Class Activation Tokens", NeurIPS 2022.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and of a model whose ``config`` tells of several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if the score is none of these; when called, if the layers cannot be told.
        RuntimeError: when called, if attention is not met once in each layer over one patch grid.
    """

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "AttCAT"

    def _differentiated(self, layers: LayerTokens) -> Sequence[Tensor]:
        layers.check_attention()
        return layers.tokens[1:]

    def _relevance(self, layers: LayerTokens, gradients: Sequence[Tensor]) -> Tensor:
        of_layers = map(layers.over_channels, layers.tokens[1:], gradients)
        weighted = [
            layer.received.to(given.device) * given for layer, given in zip(layers.attention, of_layers, strict=True)
        ]
        return torch.stack(weighted).sum(0)


class LibraAttCAT(AttCAT):
    r"""
    Libra AttCAT: :class:`AttCAT` in a balanced backward pass, see :mod:`captum_gmar.engine.hidden_states.libragrad`.

    What it does not mean: what :class:`AttCAT` does not. Signed, in units of the logit.

    Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR
    2025, https://arxiv.org/abs/2411.16760.

    Args:
        model: see :class:`~captum_gmar.attr._base.AttentionAttribution`. Its layers are those of one
            ``nn.ModuleList`` or ``nn.Sequential``.
        score: what is explained: "logit", as published, or "log-odds" of the target against all other classes. With
            ``contrast``, and of a model whose ``config`` tells of several labels at once, it is the logit.
        forward_func: what is explained, if not the model's logits. It runs the model once.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if the score is none of these; when called, if the layers cannot be told.
        RuntimeError: when called, if attention is not met once in each layer over one patch grid, or the model holds a
            norm or gate that is not known; the message says how to register its rule.
    """

    balances = True

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "Libra AttCAT"
