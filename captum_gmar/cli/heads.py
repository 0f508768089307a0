"""``captum-gmar heads``: how much each attention head matters, over images, and whether such scores mean anything."""

import argparse
from pathlib import Path
from typing import Any

from captum_gmar.cli.options import (
    AddNames,
    add_device_and_size,
    command_parser,
    names_of,
    path,
    place,
    positive,
    whole,
)
from captum_gmar.cli.outputs import FORMATS, find_images, plan_array, plan_pictures
from captum_gmar.cli.terminal import CommandError

SCORES = ("gmar-l1", "gmar-l2", "mask-gradient", "entropy")
DEFAULT = ("gmar-l1", "mask-gradient")
FILLS = ("zero", "mean")
RANDOM = 5
MARK = "heads"  # what the names of pictures end in
SCENES = "built-in-scenes"

DESCRIPTION = """\
Scores the attention heads of an image classifier: how much each matters to the
class that is explained, on average over images. It prints a table of layers and
heads and writes a picture of it. With --ablate it asks whether the scores mean
anything: it silences heads in order of each score and follows what becomes of
the predictions, against random orders. Without DATA and --model it is about the
built-in model on built-in scenes, and needs no network.
"""

EPILOG = f"""\
scores:
  gmar-l1, gmar-l2  GMAR's head importance, a share of its layer: the L1 or L2
    norm of the gradient of the class's logit with respect to the head's
    attention
  mask-gradient     of Michel et al.: how much the loss would change, to first
    order, if the head were silenced; nats (of the logit, where the model has
    one class or several at once)
  entropy           of the head's attention, in nats: how widely it looks; it
    knows nothing of the class, and "most first" means the widest first

DATA is an image file, a folder of image files, or one of
  a folder with a subfolder of images for each class
  a .csv file with the columns path and label, or a .json list of such records
  a data set on disk, saved by the `datasets` library: image, label

With --output RESULTS, a folder, it holds heads.md, heads.csv (mean and standard
deviation over the images, of all and by class), heads.png, settings.json,
skipped.csv where images were left out, and journal/: killed at any moment, the
same command goes on where it stopped. With --ablate also ablation.csv and
ablation.png: heads are ranked by one half of the images and silenced on the
other half, both drawn by --seed.

On several GPUs or machines, with --output RESULTS:
  torchrun --nproc-per-node K -m captum_gmar heads ...

picture formats: {", ".join(FORMATS)}
exit status: 0 all images scored, 1 some left out, 2 bad usage or nothing done,
  130 interrupted
"""

ARRAYS = """\
also write a NumPy file of arrays for the N images: image (N,) names; target (N,) explained class indices; label (N,)
their names; score (scores,) names; importance (scores, N, layers, heads); with --ablate, for the M images of the other
half and K numbers of silent heads: tested (M,) names; silent (K,); order (orders,) names; accuracy, probability and
logit (orders, K, M) of the target
"""


def add_command(subparsers: Any) -> None:
    """Declares the command and its arguments."""
    about = "score attention heads, and test the scores"
    parser = command_parser(subparsers, "heads", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("data", nargs="?", type=path, metavar="DATA", help="the images, see below")
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add(
        "--scores",
        type=names_of(SCORES),
        action=AddNames,
        default=DEFAULT,
        metavar="NAME,...",
        help=f"of those below, or all (default: {','.join(DEFAULT)})",
    )
    add(
        "--target",
        metavar="CLASS",
        help="the class explained: predicted (default), label (of each image in DATA; default for the built-in "
        "scenes), or for all images a class index or label",
    )
    add("--ablate", action="store_true", help="also silence heads in order of each score, see below")
    add("--fill", choices=FILLS, help="what a silent head gives: zero, or its mean output (default: zero)")
    add("--random", type=positive, metavar="N", help=f"random orders to compare with (default: {RANDOM})")
    add("--within-layers", action="store_true", help="rank heads within their layer, also at random")
    add("--limit", type=positive, metavar="N", help="take N of the images, drawn by --seed; more can follow later")
    add("--seed", type=whole, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    add(
        "--output",
        type=place,
        metavar="FILE_OR_RESULTS",
        help=f"picture (default: <data>-{MARK}.png), or folder of results",
    )
    add("--save-array", type=place, metavar="FILE.npz", help=ARRAYS)
    add_device_and_size(parser)
    add("--batch-size", type=positive, metavar="N", help="images in one pass (default: 4, on a GPU 128)")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Runs the command; how many images were scored and how many left out."""
    data = arguments.data
    if bool(data) != bool(arguments.model):
        raise CommandError("give DATA and --model, or neither for the built-in scenes and model")
    _check_ablation(arguments)
    picture = _picture(arguments)
    if arguments.ablate and picture:
        raise CommandError("--ablate must go with --output RESULTS, a folder that keeps what is finished")
    array = plan_array(arguments.save_array)
    from captum_gmar.evaluation.data import is_data_set
    from captum_gmar.evaluation.heads import weigh

    try:
        has_records = bool(data) and is_data_set(data)
    except OSError as error:
        raise CommandError(error) from error
    arguments.images, missing = find_images([str(data)]) if data and not has_records else ([], 0)
    return (0, missing) if missing else weigh(picture, array, arguments)


def _check_ablation(arguments: argparse.Namespace) -> None:
    for option in ("fill", "random", "within_layers"):
        if getattr(arguments, option) and not arguments.ablate:
            raise CommandError(f"--{option.replace('_', '-')} must go with --ablate")
    arguments.fill = arguments.fill or FILLS[0]
    arguments.random = arguments.random or RANDOM


def _picture(arguments: argparse.Namespace) -> Path | None:
    """Where the picture goes; None if there is to be a folder of results."""
    output = arguments.output
    if output and (Path(output).is_dir() or Path(output).suffix[1:].lower() not in FORMATS):
        return None
    (picture,) = plan_pictures([(arguments.data or Path(SCENES)).resolve()], output, MARK)
    return picture
