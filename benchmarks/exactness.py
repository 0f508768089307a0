"""How far the methods are from their formulas in float64 (tests/oracle.py).

    python benchmarks/exactness.py [FOLDER OF A TRAINED MODEL --images IMAGE [IMAGE ...]]

For a ViT-B/16 with random weights and, if given, for a trained model on images: the largest difference of a patch over
the largest value of its map in float32, the most over the images; and the same for the attention and gradients that
transformers itself returns in float32, put into the formulas in float64: what is due to the model's own rounding.

For GMAR in bfloat16 the rank correlation of the patches, the least over the images, with the exact numbers of the model
so rounded (the one that is explained) and with those of the model before its weights and pixels were rounded.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from captum_gmar import GMARAttribution
from captum_gmar.engine.models import patch_grid, transformer_layers
from captum_gmar.engine.switching import attention_implementation
from captum_gmar.files.markdown import table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from methods import METHODS
from oracle import Dense, attention_and_gradient, gmar, with_truncations


class Agreement(NamedTuple):
    """With the formulas in float64."""

    method: str
    error: float | None = None  # in float32
    error_of_model: float | None = None  # of what transformers returns in float32, put into the formulas
    correlation: float | None = None  # of the patches' ranks in bfloat16
    correlation_unrounded: float | None = None  # the same with the model before it was rounded


def rank_correlation(found: Tensor, exact: Tensor) -> float:
    """The least over the examples."""
    ranks = torch.stack([found.double(), exact], 1).argsort(-1).argsort(-1).double()  # (N, 2, P)
    return min(float(torch.corrcoef(example)[0, 1]) for example in ranks)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The most over the examples; none where both maps are zero."""
    ratios = (found - exact).abs().amax(1) / exact.abs().amax(1)
    return float(ratios.nan_to_num(0, posinf=torch.inf).max())


def of_methods(model: nn.Module, inputs: Tensor) -> Iterator[Agreement]:
    """In float32, wherever the model is; the formulas are computed on the processor."""
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
    """The attention and gradients that transformers itself returns."""
    with attention_implementation(model, "eager"):
        output = model(inputs, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[range(len(targets)), targets].sum(), output.attentions)
    return Dense([a.detach().double() for a in output.attentions], [g.double() for g in gradients])


def of_gmar_in_bfloat16(model: nn.Module, inputs: Tensor) -> Iterator[Agreement]:
    """Of both norms, wherever the model is."""
    home, pixels = copy.deepcopy(model).cpu(), inputs.cpu()
    targets = home(pixels).logits.argmax(-1).tolist()
    half, rounded = copy.deepcopy(model).bfloat16(), inputs.bfloat16()
    dense = attention_and_gradient(home, pixels, targets)
    dense_rounded = attention_and_gradient(copy.deepcopy(half).float().cpu(), rounded.cpu(), targets)
    patches = patch_grid(home, *inputs.shape[-2:]).patches
    for norm in ("l1", "l2"):
        exact, exact_rounded = (gmar(*matrices, norm)[:, 0, -patches:] for matrices in (dense, dense_rounded))
        in_half = GMARAttribution(half, norm).relevance(rounded, targets).flatten(1).cpu()
        correlations = (rank_correlation(in_half, reference) for reference in (exact_rounded, exact))
        yield Agreement(f"GMAR {norm}", None, None, *correlations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a Hugging Face image classifier with a CLS token")
    parser.add_argument("--images", nargs="+", default=[])
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    cases = {}
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=1000)
    model = transformers.ViTForImageClassification(config).eval()
    cases["ViT-B/16, random"] = (model, torch.randn(2, 3, 224, 224))
    if options.model:
        model = transformers.AutoModelForImageClassification.from_pretrained(options.model).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(options.model, use_fast=False)
        images = [Image.open(path).convert("RGB") for path in options.images]
        cases[Path(options.model).name] = (model, processor(images, return_tensors="pt")["pixel_values"])
    rows = [_error_cells(name, own) for name, case in cases.items() for own in of_methods(*case)]
    print(table(["model", "method", "relative error, float32", "… of the model's own attention and gradients"], rows))
    rows = [_correlation_cells(name, own) for name, case in cases.items() for own in of_gmar_in_bfloat16(*case)]
    print("\n" + table(["model", "norm", "rank correlation, bfloat16", "… with the unrounded model"], rows))


def _error_cells(name: str, own: Agreement) -> list[str]:
    return [name, own.method, f"{own.error:.1e}", "" if own.error_of_model is None else f"{own.error_of_model:.1e}"]


def _correlation_cells(name: str, own: Agreement) -> list[str]:
    return [name, own.method[-2:], f"{own.correlation:.5f}", f"{own.correlation_unrounded:.5f}"]


if __name__ == "__main__":
    main()
