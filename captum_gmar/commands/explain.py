"""``captum-gmar explain``: a picture of what fed the prediction, for each image."""

import argparse
import re
from pathlib import Path
from typing import Any

from captum_gmar.commands import CommandError
from captum_gmar.commands.outputs import FORMATS, find_images, plan_array, plan_pictures

SCENE = "built-in-scene"

DESCRIPTION = f"""\
Explains the prediction of an image classifier with GMAR. For each image it prints the most likely classes and writes
a picture of the photo as the model saw it, the relevance of its patches, and both over each other. Without an image and
a model it explains a built-in scene with the built-in model, and needs no network.

exit status: 0 all images explained, 1 some failed, 2 bad usage or nothing done, 130 interrupted
picture formats: {", ".join(FORMATS)}
"""

ARRAYS = """\
also write a NumPy file of arrays for the N images explained: image (N,) file names; target (N,) explained class
indices; label (N,) their names; logits (N, classes); relevance (N, rows, columns) of the patches, as shares of all
tokens; head_importance (N, layers, heads), each layer summing to 1
"""


def add_command(subparsers: Any) -> None:
    """Declares the command and its arguments."""
    parser = subparsers.add_parser(
        "explain",
        help="draw which patches fed the prediction",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="image file, or folder of image files (not its subfolders)")
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add("--target", default="top1", metavar="CLASS", help="class index, label, or top1, each image's most likely class")
    add("--norm", choices=["l1", "l2"], default="l1", help="norm of the gradients that weigh the heads")
    add("--residual", type=_residual, default=1.0, metavar="ALPHA", help="weight of the identity beside the attention")
    add(
        "--output",
        metavar="FILE_OR_FOLDER",
        help="picture for one image, or existing folder for <image>-gmar.png; an existing file is replaced",
    )
    add("--save-array", metavar="FILE.npz", help=ARRAYS)
    add("--device", type=_device, default="auto", metavar="auto|cpu|cuda[:n]", help="where to run")
    add("--size", type=_positive, metavar="N", help="run at NxN pixels, a multiple of the model's patch size")
    add("--batch-size", type=_positive, default=8, metavar="N", help="images per pass through the model")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Runs the command; how many images were explained and how many failed."""
    if bool(arguments.images) != bool(arguments.model):
        raise CommandError("give images and --model, or neither for the built-in scene and model")
    images, missing = find_images(arguments.images) if arguments.images else ([Path(SCENE)], 0)
    if not images:
        return 0, missing
    pictures = plan_pictures(images, arguments.output)
    array = plan_array(arguments.save_array)
    from captum_gmar.commands.explaining import explain_images, explain_scene

    explain = explain_images if arguments.images else explain_scene
    done, failed = explain(dict(zip(images, pictures, strict=True)), array, arguments)
    return done, failed + missing


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above zero. Got {text!r} instead.")
    return int(text)


def _residual(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number, zero or more. Got {text!r} instead.")
    return value


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda or cuda:n. Got {text!r} instead.")
    return text
