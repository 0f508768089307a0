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
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from captum_gmar import GMARAttribution
from captum_gmar.models import transformer_layers
from captum_gmar.switching import attention_implementation

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from methods import METHODS
from oracle import Dense, attention_and_gradient, gmar, without_layers_after, written_out


def rank_correlation(found: Tensor, exact: Tensor) -> float:
    """The least over the examples."""
    ranks = torch.stack([found.double(), exact], 1).argsort(-1).argsort(-1).double()  # (N, 2, P)
    return min(float(torch.corrcoef(example)[0, 1]) for example in ranks)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The most over the examples."""
    return float(((found - exact).abs().amax(1) / exact.abs().amax(1)).max())


def report_methods(name: str, model: nn.Module, inputs: Tensor) -> None:
    targets = model(inputs).logits.argmax(-1).tolist()
    layers = transformer_layers(model)

    def dense(other: nn.Module) -> Dense:
        return written_out(other, lambda copied, pixels: copied(pixels).logits, inputs, targets)

    exact = dense(model)
    exact.truncated = lambda layer: dense(without_layers_after(model, layers, layer))
    with attention_implementation(model, "eager"):
        output = model(inputs, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[range(len(targets)), targets].sum(), output.attentions)
    own = Dense([a.detach().double() for a in output.attentions], [g.double() for g in gradients])
    for method, row in METHODS.items():
        if row.expected is None:
            continue
        relevance = row.make(model).relevance(inputs, targets).flatten(1)
        expected = row.expected(exact)[:, 0, -relevance.shape[1] :]
        error = f"{relative_error(relevance, expected):.1e}"
        of_model = "" if "LeGrad" in method else f"{relative_error(row.expected(own)[:, 0, -196:], expected):.1e}"
        print(f"| {name} | {method} | {error} | {of_model} |")


def report_gmar(name: str, model: nn.Module, inputs: Tensor) -> None:
    targets = model(inputs).logits.argmax(-1).tolist()
    half, rounded = copy.deepcopy(model).bfloat16(), inputs.bfloat16()
    dense = attention_and_gradient(model, inputs, targets)
    dense_rounded = attention_and_gradient(half.float(), rounded, targets)
    half.bfloat16()
    prefix = 1 + hasattr(model, "deit")
    for norm in ("l1", "l2"):
        exact, exact_rounded = (gmar(*matrices, norm)[:, 0, prefix:] for matrices in (dense, dense_rounded))
        in_half = GMARAttribution(half, norm).relevance(rounded, targets).flatten(1)
        correlations = [rank_correlation(in_half, reference) for reference in (exact_rounded, exact)]
        print(f"| {name} | {norm} | {correlations[0]:.5f} | {correlations[1]:.5f} |")


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
    print("| model | method | relative error, float32 | … of the model's own attention and gradients |")
    print("| --- | --- | --- | --- |")
    for name, (model, inputs) in cases.items():
        report_methods(name, model, inputs)
    print("\n| model | norm | rank correlation, bfloat16 | … with the unrounded model |")
    print("| --- | --- | --- | --- |")
    for name, (model, inputs) in cases.items():
        report_gmar(name, model, inputs)


if __name__ == "__main__":
    main()
