"""Rivals that take many passes for a map, at budgets that token evidence takes as well.

A pass is one forward and one backward pass; a forward pass alone counts a third of it, and one without half of the
tokens a sixth. Methods that remove patches set them to zero, which is the mean colour of the data, or, where the name
says so, leave their tokens out.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import captum.attr
import torch
import torch.nn.functional as F
from captum._utils.models.model import Model
from torch import Tensor, nn

from captum_gmar import TokenEvidence
from captum_gmar.ablation import TokenRemoval
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.attr.scores import log_odds
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits, patch_grid
from captum_gmar.metrics import Removal, Zero

BUDGETS = (3, 5, 9, 17, 33, 65)
LARGER = (5, 17, 65, 257, 1025)
FORWARDS_PER_PASS = 3
AT_ONCE = 16
RISE_CELLS = 7  # on each side of a mask, before it is enlarged, as in the paper
NOISE = 0.15  # of SmoothGrad, of the range of an image, as in the paper
CAUSAL_NOISE = 0.1  # of ViT-CX, in units of normalised pixels
SAME = 0.1  # cosine distance at which ViT-CX takes masks together

Explain = Callable[[Tensor, int], Tensor]  # of one image and class, to attributions of the image's shape


def _each(explain: Explain) -> Method:
    """Return a method that explains examples one by one."""

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        classes = torch.as_tensor(target).expand(len(inputs)).tolist()
        pairs = zip(inputs.detach(), classes, strict=True)
        return torch.cat([explain(image[None], label).expand_as(image[None]).detach() for image, label in pairs])

    return attribute


def _path(model: nn.Module, *, passes: int) -> Method:
    """Return Captum's integrated gradients of so many steps from zeros.

    Those on tokens are the same: a token is an affine function of its patch, so both paths are one.
    """
    gradients = captum.attr.IntegratedGradients(Logits(model))
    options = {"n_steps": passes, "internal_batch_size": AT_ONCE}
    return _each(lambda image, label: gradients.attribute(image, target=label, **options))


def _smooth(model: nn.Module, *, passes: int) -> Method:
    """Return SmoothGrad of token evidence: the mean over noisy images, by Captum's NoiseTunnel.

    Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017.
    """
    tunnel = captum.attr.NoiseTunnel(TokenEvidence(model))
    options = {"nt_samples": passes, "nt_samples_batch_size": AT_ONCE}

    def explain(image: Tensor, label: int) -> Tensor:
        return tunnel.attribute(image, target=label, stdevs=NOISE * float(image.max() - image.min()), **options)

    return _each(explain)


def _spread(model: nn.Module, values: Tensor, image: Tensor) -> Tensor:
    """Return attributions of the values (P,) of patches."""
    grid = patch_grid(model, *image.shape[2:])
    return grid.spread_like(values.view(1, *grid.shape).float(), image)


def _readout(model: nn.Module, image: Tensor, label: int, removal: Removal) -> Callable[[Tensor], Tensor]:
    """Return the target's log-odds (B,) as a function of masks (B, P), zero where a patch is removed."""
    shape = patch_grid(model, *image.shape[2:]).shape

    @torch.no_grad()
    def read(masks: Tensor) -> Tensor:
        parts = (removal(Logits(model), image, part.view(1, -1, *shape) == 0) for part in masks.split(AT_ONCE))
        return torch.cat([log_odds(logits)[:, label] for logits in parts])

    return read


class _LeastSquares(Model):
    """Linear regression that Captum's methods fit, with a penalty on the squares; without one, of least norm."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def fit(self, train_data: Iterable[tuple[Tensor, Tensor, Tensor]], **options: object) -> None:
        ((masks, values, weights),) = ([part.double() for part in batch] for batch in train_data)
        share = weights / weights.sum()
        centred, aims = masks - share @ masks, values - share @ values
        weighted = centred * weights[:, None]
        gram = weighted.mT @ centred + self.penalty * torch.eye(masks.shape[1])
        self.solution = torch.linalg.pinv(gram, hermitian=True) @ (weighted.mT @ aims)

    def representation(self) -> Tensor:
        return self.solution.float()

    def __call__(self, x: Any) -> Any:
        return x @ self.solution


def _regression(
    model: nn.Module, *, passes: int, kind: type[captum.attr.Lime], penalty: float, of_tokens: bool = False
) -> Method:
    """Return Captum's KernelSHAP or LIME of the log-odds over patches.

    LIME's sets keep half of the patches on average. Without the tokens of the others a forward pass costs half.
    """
    removal = TokenRemoval(model) if of_tokens else Zero()
    samples = FORWARDS_PER_PASS * passes * (2 if of_tokens else 1)

    def explain(image: Tensor, label: int) -> Tensor:
        method = kind(_readout(model, image, label, removal))
        method.interpretable_model = _LeastSquares(penalty)
        everything = torch.ones(1, patch_grid(model, *image.shape[2:]).patches)
        return _spread(model, method.attribute(everything, n_samples=samples, perturbations_per_eval=AT_ONCE)[0], image)

    return _each(explain)


def _rise(model: nn.Module, *, passes: int) -> Method:
    """Return RISE: the mean of random smooth masks, weighted by the probability of what they keep.

    Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018.
    """

    def explain(image: Tensor, label: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        cells = torch.rand(FORWARDS_PER_PASS * passes, 1, RISE_CELLS, RISE_CELLS, generator=generator) < 0.5
        masks = F.interpolate(cells.float(), image.shape[2:], mode="bilinear", align_corners=False)
        kept = _probabilities(model, (image * part for part in masks.split(AT_ONCE)), label)
        return (kept[:, None, None, None] * masks).mean(0, keepdim=True)

    return _each(explain)


@torch.no_grad()
def _probabilities(model: nn.Module, batches: Iterable[Tensor], label: int) -> Tensor:
    """Return the target's probability of each image."""
    return torch.cat([Logits(model)(images).softmax(1)[:, label] for images in batches])


def _greedy(model: nn.Module, *, passes: int) -> Method:
    """Return the order of a greedy search: in each round the patches that raise the log-odds most are inserted.

    A round tries each patch that is left. A budget of P (R + 1) / 2 forward passes has R rounds, of P / R patches each.
    With P rounds it is the search that PhaseWin (Chen et al. 2025) shortens.
    """

    def explain(image: Tensor, label: int) -> Tensor:
        read = _readout(model, image, label, Zero())
        patches = patch_grid(model, *image.shape[2:]).patches
        rounds = min(patches, max(1, 2 * FORWARDS_PER_PASS * passes // patches - 1))
        inserted, relevance = torch.zeros(patches), torch.zeros(patches)
        for left in range(rounds, 0, -1):
            (rest,) = (inserted == 0).nonzero(as_tuple=True)
            order = read(inserted + torch.eye(patches)[rest]).argsort(descending=True)
            chosen = rest[order[: -(-len(rest) // left)]]
            relevance[chosen] = torch.arange(len(rest), len(rest) - len(chosen), -1.0)
            inserted[chosen] = 1
        return _spread(model, relevance, image)

    return _each(explain)


def _vit_cx(model: nn.Module, *, passes: int) -> Method:
    r"""Return ViT-CX: masks that are channels of the last layer's normalised tokens, weighted by their causal impact.

    With p the target's probability, M a mask and Z Gaussian noise that is drawn for each mask, the relevance is
    :math:`\sum_M s_M M / \sum_M M`, where :math:`s_M = p(x M + Z (1 - M)) - p(x + Z (1 - M)) + p(x)`. Masks whose
    cosine distance is below 0.1 are taken together, and so many that both images of each mask fit the budget. Xie, Li,
    Cao, Zhang: ViT-CX: Causal Explanation of Vision Transformers. IJCAI 2023, and their code.
    """
    norm = next(part for part in transformer_layers(model)[-1].modules() if isinstance(part, nn.LayerNorm))
    tokens: list[Tensor] = []

    def explain(image: Tensor, label: int) -> Tensor:
        grid = patch_grid(model, *image.shape[2:])
        handle = norm.register_forward_hook(lambda _, given, normalised: tokens.append(normalised))
        try:
            own = _probabilities(model, [image], label)
        finally:
            handle.remove()
        channels = tokens.pop()[0, -grid.patches :].T.reshape(-1, 1, *grid.shape)
        masks = _to_unit(F.interpolate(channels, image.shape[2:], mode="bilinear", align_corners=False).flatten(1))
        groups = _clusters(masks, (FORWARDS_PER_PASS * passes - 1) // 2)
        masks = _to_unit(torch.stack([masks[group].sum(0) for group in groups])).view(-1, 1, *image.shape[2:])
        noise = CAUSAL_NOISE * torch.randn(len(masks), *image.shape[1:], generator=torch.Generator().manual_seed(0))
        hidden = noise * (1 - masks)
        kept, noisy = (
            _probabilities(model, images.split(AT_ONCE), label) for images in (image * masks + hidden, image + hidden)
        )
        scores = (kept - noisy + own)[:, None, None, None]
        return (scores * masks).sum(0, keepdim=True) / masks.sum(0, keepdim=True).clamp(min=1e-6)

    return _each(explain)


def _to_unit(rows: Tensor) -> Tensor:
    """Return rows (M, pixels), each from 0 to 1."""
    low, high = rows.aminmax(dim=1, keepdim=True)
    return (rows - low) / (high - low).clamp(min=1e-12)


def _clusters(rows: Tensor, limit: int) -> list[list[int]]:
    """Return groups of like rows by complete linkage of cosine distances, at most ``limit`` of them."""
    unit = F.normalize(rows, dim=1)
    distances = (1 - unit @ unit.T).fill_diagonal_(torch.inf)
    groups = {row: [row] for row in range(len(rows))}
    while len(groups) > 1:
        first, second = divmod(int(distances.argmin()), len(rows))
        if distances[first, second] > SAME and len(groups) <= limit:
            break
        groups[first] += groups.pop(second)
        distances[first] = distances[:, first] = torch.maximum(distances[first], distances[second])
        distances[second] = distances[:, second] = torch.inf
    return list(groups.values())


def _smooth_random(model: nn.Module) -> Method:
    """Return smooth random maps, which know nothing of the image, for comparison."""
    cells = torch.rand(1, 1, RISE_CELLS, RISE_CELLS, generator=torch.Generator().manual_seed(0))
    return _each(lambda image, _: F.interpolate(cells, image.shape[2:], mode="bilinear", align_corners=False))


_KERNEL_SHAP = partial(_regression, kind=captum.attr.KernelShap, penalty=0.0)
_LIME = partial(_regression, kind=captum.attr.Lime, penalty=1.0)  # the penalty that the paper's code has
_OTHERS: dict[str, tuple[Callable[..., Method], tuple[int, ...]]] = {  # each with the budgets at which it is defined
    "integrated-gradients": (_path, LARGER),
    "smooth-token-evidence": (_smooth, LARGER),
    "kernel-shap": (_KERNEL_SHAP, LARGER),
    "lime": (_LIME, LARGER),
    "lime-of-tokens": (partial(_LIME, of_tokens=True), LARGER),
    "rise": (_rise, LARGER),
    "greedy-search": (_greedy, (65, 257, 1025)),
    "vit-cx": (_vit_cx, (5, 17, 65, 257)),
}


def rows() -> dict[str, Callable[..., Method]]:
    """Return token evidence with each budget, and methods of others, by name."""
    ours = {name: METHODS[name].load() for name in (f"token-evidence@{passes}" for passes in BUDGETS)}
    others = {
        f"{name}@{passes}": partial(make, passes=passes)
        for name, (make, budgets) in _OTHERS.items()
        for passes in budgets
    }
    return {**ours, **others, "smooth random map": _smooth_random}
