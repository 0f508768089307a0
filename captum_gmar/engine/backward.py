"""The pass backward, in which a rule takes relevance from each attention layer to the one before.

Letters in shapes: N examples, L layers, H heads, T tokens, D head dimension; n examples of a part.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from captum_gmar.engine._captum import compute_gradients
from captum_gmar.engine.blockwise import GradientBlocks
from captum_gmar.engine.forward import ForwardPass, without_gradient_error
from captum_gmar.engine.reading import leading
from captum_gmar.engine.rule import Importance, Rule


class BackwardPass:
    """Takes relevance down the layers.

    Args:
        rule: what is made of a layer.
        forward_pass: in which the layers were met.
        relevance: (N, T) above the last layer.
        first: the layer at which it ends.
    """

    def __init__(self, rule: Rule, forward_pass: ForwardPass, relevance: Tensor, first: int) -> None:
        self.rule = rule
        self.forward_pass = forward_pass
        self.first = first
        self.relevance = relevance.clone()  # below the layers that were met again
        self.lowest = forward_pass.count  # the layer that was met again last
        self.importance: dict[int, list[Tensor | None]] = {}  # of each layer, in parts (n, H)
        self.finite: list[tuple[int, Tensor]] = []  # of each layer and part
        self.has_gradient: list[Tensor] = []  # (n,) of each layer and part
        # tokens that the target reads
        self.read = torch.zeros(forward_pass.tokens, dtype=torch.bool, device=relevance.device)

    def run(self, selected: Tensor, goes_again: bool = False) -> None:
        """From what is explained (N,); ``goes_again`` as in :func:`gradients`.

        Raises:
            RuntimeError: if it depends on no layer, or not on every layer in turn.
            FloatingPointError: if a gradient is NaN or infinite.
        """
        self.forward_pass.check_gradient(selected)
        for layer, handout in enumerate(self.forward_pass.handouts):
            handout.on_blocks = partial(self._meet_again, layer)
            handout.goes_on = layer > self.first and not self.forward_pass.separate
        gradients(selected, [handout.anchor for handout in self.forward_pass.handouts[self.first :]], goes_again)
        for layer in reversed(range(self.first, self.forward_pass.count)):
            if layer not in self.importance:
                raise without_gradient_error(layer)
        for layer, finite in self.finite:
            if not finite:
                raise not_finite_error(f"gradient at attention layer {layer}")

    def _meet_again(self, layer: int, examples: slice, blocks: GradientBlocks) -> None:
        if examples.start == 0:
            self.lowest -= 1
            self.importance[layer] = []
        if layer != self.lowest and not self.forward_pass.separate:  # those come as their devices are done with them
            raise RuntimeError(
                f"Expected attention layer {self.lowest} on the way back but met layer {layer}: the target does not "
                "depend on every layer in turn, so relevance cannot be handed down."
            )
        self.relevance = self.relevance.to(blocks.grad_output.device)
        self._look_at(layer, blocks, self.relevance[examples])
        self.relevance[examples], importance = self.rule(self.relevance[examples], blocks)
        self.importance[layer].append(importance)

    def _look_at(self, layer: int, blocks: GradientBlocks, relevance: Tensor) -> None:
        """Notes what must be known of the gradient with respect to the output of a layer's attention."""
        gradient = blocks.grad_output.view(*blocks.shape, -1)  # (n, H, T, D)
        largest = gradient.abs().amax((1, 3))  # not finite if any number is not, and quicker than to look at each
        has_gradient = largest > 0  # (n, T)
        self.finite.append((layer, torch.isfinite(largest).all()))
        self.has_gradient.append(has_gradient.any(-1))
        last = layer == self.forward_pass.count - 1
        if last:
            self.read |= has_gradient.any(0)
        if last or self.forward_pass.separate:  # in other layers, all tokens count
            reads = has_gradient if self.rule.layerwise else has_gradient | (relevance != 0)
            blocks.keep_first(leading(reads))

    def check_start(self, start: Tensor, whole: bool) -> None:
        """Raises an error if the start tokens (N, T) are not those that the target reads after the last layer.

        Args:
            whole: whether of all patches all are to be read; not where their maximum is.
        """
        prefix = self.forward_pass.grid.prefix_tokens(self.forward_pass.tokens)
        begins = start[0] > 0
        unread = begins[:prefix] & ~self.read[:prefix]
        patches = self.read[prefix:]
        patches_unread = begins[prefix:].any() & ~(patches.all() if whole else patches.any())
        if self.read.any() and ((self.read & ~begins).any() or unread.any() or patches_unread):
            raise RuntimeError(
                f"Expected the target to read {_names(begins, prefix)} after the last layer, as is usual for such a "
                f"model, but it reads {_names(self.read, prefix)}. Say with tokens= where relevance begins."
            )

    def result(self) -> tuple[Tensor, Importance | None]:
        """Relevance (N, T) and head importance, first layer first, if the rule weighs heads."""
        relevance = self.relevance / len(self.importance) if self.rule.layerwise else self.relevance
        layers = [[part for part in parts if part is not None] for _, parts in sorted(self.importance.items())]
        if not layers[0]:
            return relevance, None
        return relevance, [torch.cat(parts).to(relevance.device) for parts in layers]

    def without_gradient(self) -> bool:
        """Whether all gradients of a layer are zero, for any example."""
        return not all(part.all() for part in self.has_gradient)


def gradients(selected: Tensor, tensors: Sequence[Tensor], goes_again: bool = False) -> tuple[Tensor, ...]:
    """Of what is explained (N,), with respect to tensors.

    Args:
        goes_again: whether the same graph is gone back once more, and so is kept.

    Raises:
        AssertionError: from Captum, if what is explained is not one number per example.
    """
    if goes_again and selected[0].numel() == 1:
        return torch.autograd.grad(torch.unbind(selected), tensors, retain_graph=True)
    grads: tuple[Tensor, ...] = compute_gradients(lambda: selected, tuple(tensors))
    return grads


def check_finite(tensor: Tensor, what: str) -> None:
    """
    Raises:
        FloatingPointError: if any number is NaN or infinite; ``what`` says of what it is.
    """
    if not torch.isfinite(tensor).all():
        raise not_finite_error(what)


def not_finite_error(what: str) -> FloatingPointError:
    """What is raised where ``what`` is NaN or infinite."""
    return FloatingPointError(
        f"The {what} must be finite. Got NaN or infinity instead. Check the inputs and the model's weights; in half "
        "precision, try float32 or bfloat16."
    )


def _names(tokens: Tensor, prefix: int | None) -> str:
    """Marked tokens (T,), in words."""
    names = [f"token {index}" for index in tokens[:prefix].nonzero().flatten().tolist()]
    if tokens[prefix:].any():
        names.append("the patches" if tokens[prefix:].all() else "some patches")
    return " and ".join(names)
