"""How far the methods are from their formulas in float64 (tests/oracle.py).

    python benchmarks/exactness.py [FOLDER OF A TRAINED MODEL --images IMAGE [IMAGE ...]] [--only float32|half]

For a ViT-B/16 with random weights and, if given, for a trained model on images: the largest difference of a patch over
the largest value of its map in float32, the most over the images; and the same for the attention and gradients that
transformers itself returns in float32, put into the formulas in float64: what is due to the model's own rounding.

In bfloat16 and float16, for the built-in model on its scenes and for the trained one: Spearman's rank correlation of
the patches with the map in float64 of the model so rounded, which is the one that is explained, the median and the
least over the images. Beside them the same of the formulas in float64, of queries, keys, values and gradients that the
model itself computes in half precision: what is due to it. And the median with the model before it was rounded.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_gmar.attr.catalogue import METHODS as CATALOGUE
from captum_gmar.attr.catalogue import OURS
from captum_gmar.demo import load_model, load_scene
from captum_gmar.engine.models.attention_backend import attention_implementation
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import spearman

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle
from methods import METHODS, gmar
from oracle import Dense, with_truncations

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SCENES = 6  # of the built-in model
# Of one pass, for the methods that read its attention alone.
FORMULAS: dict[str, Callable[[Dense], Tensor]] = {
    **{f"gmar-{norm}": gmar(norm) for norm in ("l1", "l2")},
    **{f"gmar-{way}": gmar("l1", recursion=way) for way in ("forward", "additive")},
    "rollout": oracle.attention_rollout,
    **{f"rollout-{way}": partial(oracle.attention_rollout, recursion=way) for way in ("forward", "additive")},
    "raw-attention": oracle.raw_attention,
    "gradient-rollout": oracle.gradient_rollout,
    "gradient-rollout-gmar": partial(oracle.gradient_rollout, norm="l1"),
    "attention-grad-cam": oracle.attention_grad_cam,
    "gmar++": oracle.gmar_plus_plus,
    "grad-sam": oracle.grad_sam,
}


class Agreement(NamedTuple):
    """With the formulas in float64."""

    method: str
    error: float | None = None  # in float32
    error_of_model: float | None = None  # of what transformers returns in float32, put into the formulas
    correlation: float | None = None  # of the patches' ranks in half precision, the least
    correlation_median: float | None = None
    correlation_of_model: float | None = None  # of what the model computes in half precision, the median
    correlation_of_model_least: float | None = None
    correlation_unrounded: float | None = None  # with the model before it was rounded, the median


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return the largest relative error of the examples; zero where both maps are zero."""
    ratios = (found - exact).abs().amax(1) / exact.abs().amax(1)
    return float(ratios.nan_to_num(0, posinf=torch.inf).max())


def of_methods(model: nn.Module, inputs: Tensor) -> Iterator[Agreement]:
    """Measure methods in float32 on the model's device; the CPU computes the formulas."""
    home, pixels = copy.deepcopy(model).cpu(), inputs.cpu()
    targets = home(pixels).logits.argmax(-1).tolist()
    layers, patches = transformer_layers(home), patch_grid(home, *inputs.shape[-2:]).patches
    exact = with_truncations(home, layers, lambda copied, pixels: copied(pixels).logits, pixels, targets)
    exact.patches = patches
    own = own_numbers(home, pixels, targets)
    for method, row in METHODS.items():
        if row.expected is not None:
            relevance = row.make(model).relevance(inputs, targets).flatten(1).cpu()
            expected = row.expected(exact)[:, 0, -patches:]
            try:
                of_model = relative_error(row.expected(own)[:, 0, -patches:], expected)
            except LookupError:  # the formula needs more than the pass that transformers returns
                of_model = None
            yield Agreement(method, relative_error(relevance, expected), of_model)


def own_numbers(model: nn.Module, inputs: Tensor, targets: list[int]) -> Dense:
    """Return the attention and gradients that transformers itself returns."""
    with attention_implementation(model, "eager"):
        output = model(inputs, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[range(len(targets)), targets].sum(), output.attentions)
    return Dense([a.detach().double() for a in output.attentions], [g.double() for g in gradients])


def of_half_precision(
    model: nn.Module, inputs: Tensor, precision: torch.dtype, names: Sequence[str] = OURS
) -> Iterator[Agreement]:
    """Measure methods by name on the model's device; the CPU computes the maps in float64."""
    home, pixels = copy.deepcopy(model).cpu(), inputs.cpu()
    targets = home(pixels).logits.argmax(-1).tolist()
    home = home.double()
    half, halved = copy.deepcopy(model).to(precision), inputs.to(precision)
    rounded, patches = copy.deepcopy(half).double().cpu(), patch_grid(home, *inputs.shape[-2:]).patches
    own = numbers_of_one_pass(half, halved, targets)
    for name in names:
        make = CATALOGUE[name].load()
        found = make(half).relevance(halved, targets).flatten(1).cpu().double()
        exact = make(rounded).relevance(halved.double().cpu(), targets).flatten(1)
        unrounded = make(home).relevance(pixels.double(), targets).flatten(1)
        formula = FORMULAS.get(name)
        of_model = None if formula is None else spearman(formula(own)[:, 0, -patches:], exact)
        correlations = spearman(found, exact)
        yield Agreement(
            name,
            correlation=float(correlations.min()),
            correlation_median=float(correlations.quantile(0.5)),
            correlation_of_model=None if of_model is None else float(of_model.quantile(0.5)),
            correlation_of_model_least=None if of_model is None else float(of_model.min()),
            correlation_unrounded=float(spearman(found, unrounded).quantile(0.5)),
        )


class Watched(TorchFunctionMode):
    """Within the block, what goes into attention and what comes out is kept; it is torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[Tensor, ...]] = []  # query, key, value and output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            self.met.append((*args[:3], result))
        return result


def numbers_of_one_pass(model: nn.Module, inputs: Tensor, targets: list[int]) -> Dense:
    """Attention and gradients in float64, of what the model itself computes in its precision."""
    with Watched() as watched, attention_implementation(model, "sdpa"):
        logits = model(inputs).logits
    gradients = torch.autograd.grad(logits[range(len(targets)), targets].sum(), [output for *_, output in watched.met])
    attentions, of_attentions = [], []
    for (query, key, value, _), gradient in zip(watched.met, gradients, strict=True):
        query, key, value, gradient = (t.detach().double().cpu() for t in (query, key, value, gradient))
        attentions.append((query @ key.mT * query.shape[-1] ** -0.5).softmax(-1))
        of_attentions.append(gradient @ value.mT)
    return Dense(attentions, of_attentions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a Hugging Face image classifier with a CLS token")
    parser.add_argument("--images", nargs="+", default=[])
    parser.add_argument("--only", choices=("float32", "half"), help="one of the two parts; default: both")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    trained = {Path(options.model).name: _trained(options.model, options.images)} if options.model else {}
    if options.only != "half":
        print(_errors({"ViT-B/16, random": _random(), **trained}))
    built_in = load_model(), torch.cat([load_scene(seed).pixel_values for seed in range(SCENES)])
    if options.only != "float32":
        print("\n\n".join(_correlations(name, *case) for name, case in ({"built-in": built_in} | trained).items()))


def _random() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)).eval()
    return model, torch.randn(2, 3, 224, 224)


def _trained(folder: str, images: Sequence[str]) -> tuple[nn.Module, Tensor]:
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pictures = [Image.open(path).convert("RGB") for path in images]
    return model, processor(pictures, return_tensors="pt")["pixel_values"]


def _errors(cases: dict[str, tuple[nn.Module, Tensor]]) -> str:
    rows = [
        [name, own.method, f"{own.error:.1e}", "" if own.error_of_model is None else f"{own.error_of_model:.1e}"]
        for name, case in cases.items()
        for own in of_methods(*case)
    ]
    return table(["model", "method", "relative error, float32", "… of the model's own attention and gradients"], rows)


def _correlations(name: str, model: nn.Module, inputs: Tensor) -> str:
    halves = [of_half_precision(model, inputs, precision) for precision in HALVES.values()]
    header = [
        f"{name}, {len(inputs)} images",
        *(
            cell
            for precision in HALVES
            for cell in (f"{precision}: median; least", "… of the model's own numbers", "with the unrounded model")
        ),
    ]
    return table(header, ([both[0].method, *_correlation_cells(both)] for both in zip(*halves, strict=True)))


def _correlation_cells(halves: Iterable[Agreement]) -> Iterator[str]:
    for half in halves:
        yield _pair(half.correlation_median, half.correlation)
        yield _pair(half.correlation_of_model, half.correlation_of_model_least)
        yield f"{half.correlation_unrounded:.4f}"


def _pair(median: float | None, least: float | None) -> str:
    return "" if median is None else f"{median:.4f}; {least:.4f}"


if __name__ == "__main__":
    main()
