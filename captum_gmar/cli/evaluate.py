"""``captum-gmar evaluate``: how faithful and how well placed the maps of methods are, over a data set."""

import argparse
from pathlib import Path
from typing import Any

from captum_gmar.attr.catalogue import EVALUATED
from captum_gmar.cli.options import (
    AddNames,
    add_device_and_size,
    add_methods,
    command_parser,
    names_of,
    part,
    path,
    positive,
    whole,
)
from captum_gmar.cli.removals import NAMES as REMOVALS
from captum_gmar.cli.terminal import CommandError

CURVES = ("insertion", "deletion")
MASKED = ("average-drop", "average-increase", "average-gain")
LOCALISATION = ("pointing-game", "relevance-mass", "relevance-rank")
ANEW = ("class-sensitivity", "sensitivity-max", "infidelity")
METRICS = CURVES + MASKED + LOCALISATION + ANEW

DESCRIPTION = """\
Measures how faithful the maps of several methods are, and where they lie, over
a data set. Every method explains the same class of the same images; a random, a
uniform and a centred map are measured along with them. Killed at any moment,
the same command goes on where it stopped.
"""

EPILOG = """\
DATA is one of
  a folder with a subfolder of images for each class
  a .csv file with the columns path, label and, if known, boxes and mask
  a .json list of records of these
  a data set on disk, saved by the `datasets` library: image, label, boxes, mask
Paths in files are absolute or relative to the file; boxes are lists of
x0, y0, x1, y1 in pixels of the image; masks are images, not zero on the object.
Without DATA and --model the built-in model is measured on built-in scenes of
two objects each.

RESULTS holds summary.md, summary.csv (means with 95 % bootstrap intervals),
differences.csv (of every two methods on the same images), examples.csv,
curves.csv, plots/, settings.json, skipped.csv where images were left out, and
journal/, which a run that goes on reads: with more images or more methods.

On several GPUs or machines:
  torchrun --nproc-per-node K -m captum_gmar evaluate ...

exit status: 0 all images measured, 1 some left out, 2 bad usage or nothing
  done, 130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declares the command and its arguments."""
    about = "measure how faithful methods are, over a data set"
    parser = command_parser(subparsers, "evaluate", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("data", nargs="?", type=path, metavar="DATA", help="the images, see below")
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add_methods(parser, EVALUATED)
    add(
        "--metrics",
        type=names_of(METRICS),
        action=AddNames,
        metavar="NAME,...",
        help=f"of {', '.join(METRICS)}, or all (default: the first five and, where boxes or masks are known, the three "
        "after them)",
    )
    add(
        "--removal",
        type=names_of(REMOVALS),
        action=AddNames,
        default=("blur",),
        metavar="NAME,...",
        help=f"how insertion and deletion remove patches: of {', '.join(REMOVALS)}, or all (default: blur)",
    )
    add(
        "--target",
        choices=["predicted", "label"],
        help="the class that is explained (default: predicted, on built-in scenes label)",
    )
    add("--steps", type=positive, default=28, metavar="N", help="of insertion and deletion (default: 28)")
    add("--masks", type=Path, metavar="FILE", help=".csv or .json file with path and mask of images in DATA")
    add("--boxes", type=Path, metavar="FILE", help=".csv or .json file with path and boxes of images in DATA")
    add("--part", type=part, default=(1, 1), metavar="K/N", help="of the images every Nth, from the Kth on")
    add("--limit", type=positive, metavar="N", help="measure N of the images, drawn by --seed; more can follow later")
    add("--seed", type=whole, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    add("--output", type=path, required=True, metavar="RESULTS", help="folder of the results, see below")
    add_device_and_size(parser)
    add("--batch-size", type=positive, metavar="N", help="images in one pass (default: 16, on a GPU 128)")
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of passes over perturbed images; bfloat16 is faster where the device has it. Maps are always in float32",
    )


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Runs the command; how many images were measured and how many left out."""
    if bool(arguments.data) != bool(arguments.model):
        raise CommandError("give DATA and --model, or neither for the built-in scenes and model")
    from captum_gmar.evaluation.faithfulness import evaluate

    return evaluate(arguments)
