"""``captum-gmar explain``: a picture of what fed the prediction, for each image."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_gmar.attr.catalogue import CAPTUMS, METHODS, OURS
from captum_gmar.cli.methods import check_taken, method_name
from captum_gmar.cli.options import add_device_and_size, command_parser, positive, top_classes
from captum_gmar.cli.outputs import FORMATS, find_images, plan_array, plan_pictures
from captum_gmar.cli.terminal import CommandError
from captum_gmar.cli.tokens import FORMS, token

SCENE = "built-in-scene"

DESCRIPTION = """\
Explains the prediction of an image classifier with GMAR, with other methods, or
with several side by side. For each image it prints the most likely classes and
writes a picture of the photo as the model saw it and the relevance of its
patches. Without an image and a model it explains a built-in scene with the
built-in model, and needs no network.
"""


FROM_TOKENS = tuple(name for name, entry in METHODS.items() if entry.takes_tokens)
FROM_ALL_LAYERS = tuple(name for name in OURS if name not in FROM_TOKENS)


def _listing(names: Sequence[str]) -> str:
    return textwrap.fill(", ".join(names), 80, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


EPILOG = f"""\
methods:
  that take --tokens and --contrast:
{_listing(FROM_TOKENS)}
  that take --contrast:
{_listing(FROM_ALL_LAYERS)}
  Captum's, summed over the pixels of each patch; occlusion and feature-ablation
  are of whole patches already:
{_listing(CAPTUMS)}
  The target and the contrast mean nothing to rollout, rollout-forward,
  rollout-additive, raw-attention and published-gmar. Where relevance can be
  negative, red speaks for the class and blue against it.

picture formats: {", ".join(FORMATS)}
exit status: 0 all images explained, 1 some failed, 2 bad usage or nothing done,
  130 interrupted
"""

ARRAYS = """\
also write a NumPy file of arrays for the N images explained: image (N,) file names; target (N,) explained class
indices; label (N,) their names; logits (N, classes); method (methods,) names; relevance (methods, N, rows, columns) of
the patches; head_importance (N, layers, heads), each layer summing to 1, of the first method whose name begins with
gmar-, if any. With --target topK for K above 1, target, label, relevance and head_importance have a dimension of K
classes, most likely first, after that of the N images
"""

TARGET = """\
class index, label, or topK, each image's K most likely classes, side by side by one method (default: top1)
"""

CONTRAST = """\
class index or label: explain why the target rather than this class; topK for K above 1 leaves this class out
"""

OUTPUT = """\
picture for one image, or existing folder for <image>-<method>.png, of several classes <image>-<method>-topK.png, of
several methods <image>-comparison.png; an existing file is replaced. Such pictures are known by a note in the file and
left out when their folder is explained
"""


def add_command(subparsers: Any) -> None:
    """Declares the command and its arguments."""
    about = "draw which patches fed the prediction"
    parser = command_parser(subparsers, "explain", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="image file, or folder of image files (not its subfolders)")
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add(
        "--method",
        type=method_name,
        action="append",
        metavar="NAME",
        help="one of the methods below; several, side by side, by repeating it (default: gmar-l1)",
    )
    add("--target", default="top1", metavar="CLASS", help=TARGET)
    add("--contrast", metavar="CLASS", help=CONTRAST)
    add(
        "--tokens",
        type=token,
        action="append",
        metavar="WHERE",
        help=f"where relevance begins, if not where the classifier reads: {FORMS}; several, in equal parts, by "
        "repeating it",
    )
    add("--output", metavar="FILE_OR_FOLDER", help=OUTPUT)
    add("--save-array", metavar="FILE.npz", help=ARRAYS)
    add_device_and_size(parser)
    add("--batch-size", type=positive, default=8, metavar="N", help="images explained at once")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Runs the command; how many images were explained and how many failed."""
    if bool(arguments.images) != bool(arguments.model):
        raise CommandError("give images and --model, or neither for the built-in scene and model")
    names = arguments.methods = tuple(dict.fromkeys(arguments.method or ["gmar-l1"]))
    arguments.tokens = list(dict.fromkeys(arguments.tokens or []))
    if arguments.tokens:
        check_taken("--tokens", names, FROM_TOKENS)
    if arguments.contrast is not None:
        check_taken("--contrast", names, OURS)
    top = top_classes(arguments.target) or 1
    if top > 1 and len(names) > 1:
        raise CommandError(f"--target {arguments.target} must go with one method. Got {', '.join(names)} instead.")
    images, missing = find_images(arguments.images) if arguments.images else ([Path(SCENE)], 0)
    if not images:
        return 0, missing
    pictures = plan_pictures(images, arguments.output, mark=_mark(names, top))
    array = plan_array(arguments.save_array)
    from captum_gmar.cli.explain_images import explain_images, explain_scene

    explain = explain_images if arguments.images else explain_scene
    done, failed = explain(dict(zip(images, pictures, strict=True)), array, arguments)
    return done, failed + missing


def _mark(names: Sequence[str], top: int) -> str:
    """What the names of pictures end in."""
    if len(names) > 1:
        return "comparison"
    return names[0] if top == 1 else f"{names[0]}-top{top}"
