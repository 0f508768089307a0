"""How far GMAR is from the formulas in float64 (tests/oracle.py).

    python benchmarks/exactness.py [FOLDER OF A TRAINED MODEL --images IMAGE [IMAGE ...]]

For a ViT-B/16 with random weights and, if given, for a trained model on images: the largest difference of a patch over
the largest value in float32; and in bfloat16 the rank correlation of the patches, the least over the images, with the
exact numbers of the model so rounded (the one that is explained) and with those of the model before its weights and
pixels were rounded (which holds what rounding does to the model itself).
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from oracle import attention_and_gradient, gmar


def rank_correlation(found: Tensor, exact: Tensor) -> float:
    """The least over the examples."""
    ranks = torch.stack([found.double(), exact], 1).argsort(-1).argsort(-1).double()  # (N, 2, P)
    return min(float(torch.corrcoef(example)[0, 1]) for example in ranks)


def report(name: str, model: nn.Module, inputs: Tensor) -> None:
    targets = model(inputs).logits.argmax(-1).tolist()
    half, rounded = copy.deepcopy(model).bfloat16(), inputs.bfloat16()
    dense = attention_and_gradient(model, inputs, targets)
    dense_rounded = attention_and_gradient(half.float(), rounded, targets)
    half.bfloat16()
    prefix = 1 + hasattr(model, "deit")
    for norm in ("l1", "l2"):
        exact, exact_rounded = (gmar(*matrices, norm)[:, 0, prefix:] for matrices in (dense, dense_rounded))
        relevance = GMARAttribution(model, norm).relevance(inputs, targets).flatten(1)
        error = float((relevance - exact).abs().max() / exact.abs().max())
        in_half = GMARAttribution(half, norm).relevance(rounded, targets).flatten(1)
        correlations = [rank_correlation(in_half, reference) for reference in (exact_rounded, exact)]
        print(f"| {name} | {norm} | {error:.1e} | {correlations[0]:.5f} | {correlations[1]:.5f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a Hugging Face image classifier with a CLS token")
    parser.add_argument("--images", nargs="+", default=[])
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    print("| model | norm | relative error, float32 | rank correlation, bfloat16 | … with the unrounded model |")
    print("| --- | --- | --- | --- | --- |")
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=1000)
    report("ViT-B/16, random", transformers.ViTForImageClassification(config).eval(), torch.randn(2, 3, 224, 224))
    if options.model:
        model = transformers.AutoModelForImageClassification.from_pretrained(options.model).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(options.model)
        images = [Image.open(path).convert("RGB") for path in options.images]
        report(Path(options.model).name, model, processor(images, return_tensors="pt")["pixel_values"])


if __name__ == "__main__":
    main()
