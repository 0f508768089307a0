"""``captum-gmar explain``: a heatmap of the prediction for each image."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any

from captum_gmar.attr.catalogue import CAPTUMS, METHODS
from captum_gmar.cli.explain_runs import DEFAULT, run_images, run_prompt
from captum_gmar.cli.options import (
    TOKEN_FORMS,
    above_zero,
    add_device_and_size,
    add_methods,
    box,
    command_parser,
    place,
    point,
    share,
    target,
    token,
)
from captum_gmar.cli.paths import FORMATS
from captum_gmar.cli.terminal import CommandError

DESCRIPTION = """\
Explains the prediction of an image classifier with GMAR, with other methods, or
with several side by side. For each image it prints the most likely classes and
writes a picture of the photo with the relevance of its patches over it. Without
an image and a model it explains a built-in scene with the built-in model, and
needs no network.

Of models that detect objects, segment images, or classify videos or sounds,
which their config tells, it explains one object, the places of one class, or a
class, by attention-evidence.

With --prompt it asks a vision-language model instead, and writes a page of HTML
for each image: every word of the answer with the patches that fed it. Without an
image and a model it asks the built-in one about a scene, such as --prompt "what
is in the picture?".
"""

CLASSLESS = tuple(name for name, entry in METHODS.items() if not entry.reads_class)
FROM_TOKENS = tuple(name for name, entry in METHODS.items() if entry.takes_tokens and entry.reads_class)
FROM_ALL_LAYERS = tuple(name for name, entry in METHODS.items() if entry.takes_contrast and not entry.takes_tokens)


def _method_lines(names: Sequence[str]) -> str:
    return textwrap.fill(", ".join(names), 80, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


EPILOG = f"""\
methods:
  that take --tokens and --contrast:
{_method_lines(FROM_TOKENS)}
  that take --contrast:
{_method_lines(FROM_ALL_LAYERS)}
  that are the same for every class, so that --contrast and --target topK mean
  nothing to them; all but published-gmar take --tokens:
{_method_lines(CLASSLESS)}
  Captum's, summed over the pixels of each patch; occlusion and feature-ablation
  are of whole patches already:
{_method_lines(CAPTUMS)}
  Where relevance can be negative, red speaks for the class and blue against it.

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

PROMPT = """\
ask a vision-language model about each image, and write a page of what fed every word; goes with IMAGE, --model,
--answer, --contrast, --output and --device alone
"""

TEXT = """\
of a model that scores images against texts, such as CLIP and SigLIP: a class; several, by repeating it. Without
--target all of them are explained, side by side by one method
"""

BOX = """\
of a detector: explain what it sees in this box, in pixels of the image; with --target, what it sees of this class
there. Without either, what it is surest of
"""

MASK = """\
of a segmenter: a class over the white of this picture, which is as large as the image. Without it and --point, where
the model predicts the class
"""

OUTPUT = """\
picture for one image, or folder, which is made if it ends in a slash, for <image>-<method>.png, of several methods
<image>-comparison-<methods>.png; class, contrast, tokens, size and all else that is given stand in the name as well. A
file named like this is replaced by a picture of the same image, model and settings alone, which a note in it tells.
Such pictures are left out when their folder is explained
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "draw which patches fed the prediction"
    parser = command_parser(subparsers, "explain", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("images", nargs="*", type=place, metavar="IMAGE", help="image file, or folder of them (not its subfolders)")
    add("--model", type=place, metavar="ID_OR_PATH", help="Hugging Face id or local folder")
    add_methods(parser, DEFAULT, "of those below, side by side, or all")
    add("--target", type=target, metavar="CLASS", help=TARGET)
    add("--contrast", metavar="CLASS", help=CONTRAST)
    add("--text", action="append", metavar="TEXT", help=TEXT)
    add(
        "--tokens",
        type=token,
        action="append",
        metavar="WHERE",
        help=f"where relevance begins, if not where the classifier reads: {TOKEN_FORMS}; several, in equal parts, by "
        "repeating it",
    )
    add("--output", type=place, metavar="FILE_OR_FOLDER", help=OUTPUT)
    add("--box", type=box, metavar="X0,Y0,X1,Y1", help=BOX)
    add("--threshold", type=share, metavar="P", help="probability that what a detector sees must have (default: 0.5)")
    add("--mask", type=place, metavar="FILE", help=MASK)
    add("--point", type=point, metavar="X,Y", help="of a segmenter: a class at this pixel of the image alone")
    add("--save-array", type=place, metavar="FILE.npz", help=ARRAYS)
    add("--prompt", metavar="TEXT", help=PROMPT)
    add("--answer", metavar="TEXT", help="explain this answer, not the model's own")
    add_device_and_size(parser)
    add("--batch-size", type=above_zero, metavar="N", help="images explained at once (default: 8)")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Run the command, and return how many images were explained and how many failed."""
    if bool(arguments.images) != bool(arguments.model):
        raise CommandError("give images and --model, or neither for the built-in scene and model")
    if arguments.prompt is not None:
        return run_prompt(arguments)
    if arguments.answer is not None:
        raise CommandError("--answer must go with --prompt. Got no prompt.")
    if arguments.text and not arguments.model:
        raise CommandError("--text must go with the --model that scores images against texts")
    if arguments.mask is not None and arguments.point is not None:
        raise CommandError("--mask cannot be combined with --point. Pass one of both.")
    return run_images(arguments)
