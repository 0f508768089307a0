"""What is measured of a case: the model's own passes, and each way to a map beside the own pass it is compared with."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.cases import Case
from benchmarks.peers import PEERS
from captum_gmar import AttentionRollout, record_attention
from captum_gmar.attr.catalogue import CAPTUMS, METHODS, OURS
from captum_gmar.attr.patch_relevance import PERTURBING, attributions_of, images_at_once

TARGET = 3
TARGETS = [3, 4, 5, 6, 7]
IG_STEPS = 50
SMALL = 196  # patches of a 224² image: of larger ones, fewer fit a pass

FORWARD, BOTH, FIVE = "forward", "forward + backward", "forward + 5 backward"
OWN = (FORWARD, BOTH, FIVE)
AGAIN, DENSE = ", again", "every A and G kept"
SEVERAL = ", 5 targets"
OF_SEVERAL = tuple(name + SEVERAL for name in ("gmar-l1", "gmar-forward", "gradient-rollout", "legrad"))
ON_DISK = "rollout, disk_offload"
NAMES = (FORWARD + AGAIN, BOTH + AGAIN, *OURS, DENSE, *OF_SEVERAL, *CAPTUMS, *PEERS)


@dataclass(frozen=True)
class Row:
    """One way to a map."""

    run: Callable[[], object]
    own: str  # the model's own pass that it is compared with
    passes: int = 1  # how many of these it runs, about


class Subject:
    """A case's model and images, and what is run on them.

    Args:
        case: which model and images.
        device: where.
    """

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        self.model, self.inputs = case.build(device)

    @cached_property
    def frozen(self) -> PreTrainedModel:
        """Return a copy with frozen weights, so that the model's own passes keep nothing for their gradients."""
        return copy.deepcopy(self.model).requires_grad_(False)

    def own(self, name: str) -> Callable[[], object]:
        """Return the model's own pass of this name."""
        if name == FORWARD:
            return partial(_forward, self.frozen, self.inputs)
        return partial(_backward, self.frozen, self.inputs, [TARGET] if name == BOTH else TARGETS)

    def row(self, name: str) -> Row:
        """Return the call that makes a map of this name.

        Raises:
            Whatever a package that cannot run here raises.
        """
        if name.endswith(AGAIN):
            own = name.removesuffix(AGAIN)
            return Row(self.own(own), own)
        if name == DENSE:
            return Row(lambda: record_attention(self.model, self.inputs, TARGET), BOTH)
        if name in PEERS:
            _, peer, reads_gradient = PEERS[name]
            return Row(peer(copy.deepcopy(self.model), self.inputs, TARGET), BOTH if reads_gradient else FORWARD)
        if name == ON_DISK:
            return Row(partial(AttentionRollout(self.model, disk_offload=True).attribute, self.inputs), FORWARD)
        return self._captums(name) if name in CAPTUMS else self._ours(name)

    def _ours(self, name: str) -> Row:
        entry = METHODS[name.removesuffix(SEVERAL)]
        method: Any = entry.load()(self.model)
        if name.endswith(SEVERAL):
            return Row(lambda: method.explain(self.inputs, TARGETS).relevance, FIVE)
        of_attention_alone = entry.home.startswith("attr.rollout:")
        return Row(lambda: method.attribute(self.inputs, TARGET), FORWARD if of_attention_alone else BOTH)

    def _captums(self, name: str) -> Row:
        method = METHODS[name].load()(self.model)
        at_once = max(images_at_once(self.inputs.device) * SMALL // self.case.patches, 1)
        run = partial(attributions_of, method, self.inputs, TARGET, batch_size=at_once, ig_steps=IG_STEPS)
        if isinstance(method, PERTURBING):
            return Row(run, FORWARD, self.case.patches)
        return Row(run, BOTH, {"integrated-gradients": IG_STEPS, "gradient-shap": 5}.get(name, 1))


def _forward(model: PreTrainedModel, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs).logits


def _backward(model: PreTrainedModel, inputs: Tensor, targets: Sequence[int]) -> list[Tensor]:
    """Run one pass forward, and one backward to the input for each target."""
    leaf = inputs.clone().requires_grad_()
    logits = model(leaf).logits
    return [
        torch.autograd.grad(logits[:, target].sum(), leaf, retain_graph=target != targets[-1])[0] for target in targets
    ]
