"""How faithful the maps of several methods are, on the class that the model predicts.

    python benchmarks/faithfulness.py FOLDER_OF_A_MODEL --images IMAGE [IMAGE ...] [--methods NAME ...]

Patches are removed to the image's mean for deletion and come back from a blur for insertion; areas under the
probability's curve, as means over the images, and the mean difference with its 95 % interval.
"""

import argparse

import torch
import transformers
from PIL import Image
from torch import Tensor

from captum_gmar import methods
from captum_gmar.metrics import Mean, deletion, insertion
from captum_gmar.models import Logits, patch_grid

NAMES = ["rollout", "rollout-forward", "rollout-additive", "gmar-l1", "gmar-forward", "gmar-additive"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face image classifier")
    parser.add_argument("--images", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", choices=list(methods()), default=NAMES, metavar="NAME")
    parser.add_argument("--steps", type=int, default=14)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForImageClassification.from_pretrained(options.model).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(options.model, use_fast=False)
    images = [Image.open(path).convert("RGB") for path in options.images]
    inputs = processor(images, return_tensors="pt")["pixel_values"]
    logits, grid = Logits(model), patch_grid(model, *inputs.shape[-2:])
    with torch.no_grad():
        targets = torch.cat([logits(part).argmax(-1) for part in inputs.split(16)])
    print("| method | deletion | insertion | insertion - deletion |")
    print("| --- | --- | --- | --- |")
    for name in options.methods:
        made = methods()[name](model)
        parts = zip(inputs.split(8), targets.split(8), strict=True)
        attributions: Tensor = torch.cat([made.attribute(*part) for part in parts])
        curve = {"patch_size": (grid.patch_height, grid.patch_width), "steps": options.steps}
        deleted = deletion(logits, inputs, attributions, targets, removal=Mean(), **curve).auc
        inserted = insertion(logits, inputs, attributions, targets, **curve).auc
        difference = inserted - deleted
        margin = 1.96 * difference.std() / len(inputs) ** 0.5
        print(f"| {name} | {deleted.mean():.3f} | {inserted.mean():.3f} | {difference.mean():.3f} ± {margin:.3f} |")


if __name__ == "__main__":
    main()
