"""``captum-gmar heads``: how much each attention head matters, over images, and whether such scores mean anything."""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.cli.evaluate import check_both, run_on_data
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    DRAWN_SCENES,
    AddNames,
    add_resources,
    add_sample,
    command_parser,
    names_of,
    path,
    place,
)
from captum_gmar.cli.paths import FORMATS, PictureFile, find_images, picture_mark, plan_pictures
from captum_gmar.cli.terminal import CommandError, print_text
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, RANDOM_ORDERS, SCORES
from captum_gmar.files.names import readable_name

if TYPE_CHECKING:
    from captum_gmar.evaluation.data.subject import Subject
    from captum_gmar.evaluation.runs.run import Workplace

PICTURE_MARK = "heads"  # what the names of pictures end in
SCENES_NAME = "built-in-scenes"

DESCRIPTION = f"""\
Scores the attention heads of an image classifier: how much each matters to the
class that is explained, on average over images. It prints a table of layers and
heads and writes a picture of it. With --ablate it asks whether the scores mean
anything: it silences heads in order of each score and follows what becomes of
the predictions, against {RANDOM_ORDERS} random orders. Without DATA and --model it is about
the built-in model on built-in scenes, and needs no network.
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

With --output RESULTS, on several GPUs, each process on one of its own:
  torchrun --nproc-per-node K -m captum_gmar heads ...

picture formats: {", ".join(FORMATS)}
exit status: 0 all images scored, 1 some left out, 2 bad usage or nothing done,
  130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "score attention heads, and test the scores"
    parser = command_parser(subparsers, "heads", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("data", nargs="?", type=path, metavar="DATA", help="the images, see below")
    add("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add(
        "--scores",
        type=names_of(tuple(SCORES)),
        action=AddNames,
        default=DEFAULT_SCORES,
        metavar="NAME,...",
        help=f"of those below, or all; may be repeated (default: {', '.join(DEFAULT_SCORES)})",
    )
    add(
        "--target",
        metavar="CLASS",
        help="the class explained: predicted (default), label (of each image in DATA; default for the built-in "
        "scenes), or for all images a class index or label",
    )
    add("--ablate", action="store_true", help="also silence heads in order of each score, see below")
    add_sample(parser)
    add(
        "--output",
        type=place,
        metavar="FILE_OR_RESULTS",
        help=f"picture (default: <data>-{PICTURE_MARK}.png); without such a suffix, folder of results",
    )
    add_resources(parser, batch_size=4)


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Run the command; return how many images were scored and how many left out."""
    from captum_gmar.evaluation.data.data_files import image_examples, is_data_set, read_examples

    check_both(arguments)
    picture = _picture(arguments)
    if arguments.ablate and picture:
        raise CommandError("--ablate must go with --output RESULTS, a folder that keeps what is finished")
    is_of_images = bool(arguments.data) and not is_data_set(arguments.data)
    images, missing = find_images([str(arguments.data)]) if is_of_images else ([], 0)
    if missing:
        return 0, missing
    read = read_examples if not images else lambda data: image_examples(images)
    folder = None if picture else Path(arguments.output)
    with default_drawing():
        return run_on_data(arguments, partial(_score_heads, arguments, picture), folder, 1, read)


def _score_heads(
    arguments: argparse.Namespace, picture: PictureFile | None, subject: "Subject", place: "Workplace"
) -> tuple[int, int]:
    from captum_gmar.evaluation.evaluate_heads import run_heads
    from captum_gmar.evaluation.runs.progress import count
    from captum_gmar.evaluation.settings import HeadSettings
    from captum_gmar.files.writing import save_picture

    results = run_heads(HeadSettings(**_settings(arguments)), subject, place)
    if place.folder and place.processes.is_first:
        print_text(f"{count(len(results.images))} scored: {place.folder / 'heads.md'}")
    if picture:
        save_picture(results.visualize(use_pyplot=False)[0], *picture)
        head = [results.data, f"  explained  {results.explained}", f"  picture    {readable_name(picture.path)}", ""]
        print_text("\n".join([*head, results.tables()]))
    return len(results.images), len(results.skipped)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the run, which are noted in pictures."""
    return {
        "scores": tuple(arguments.scores),
        "target": ("predicted" if arguments.data else "label") if arguments.target is None else arguments.target,
        "ablate": arguments.ablate,
        "random_orders": RANDOM_ORDERS,
        "limit": arguments.limit or (None if arguments.data else DRAWN_SCENES),
        "seed": arguments.seed,
        "batch_size": arguments.batch_size,
    }


def _picture(arguments: argparse.Namespace) -> PictureFile | None:
    """Return the file of the picture; None for a folder of results."""
    output = arguments.output
    if output is not None:
        suffix = Path(output).suffix[1:].lower()
        if output.endswith(("/", os.sep)) or Path(output).is_dir() or not suffix:
            return None
        if suffix not in FORMATS:
            raise CommandError(
                f"--output must be a folder, or a picture that ends in one of .{', .'.join(FORMATS)}. Got {output!r} "
                f"instead; end it in / for a folder."
            )
    given = {"": arguments.target, "limit": arguments.limit, "seed": arguments.seed or None, "size": arguments.size}
    parts = [f"{name} {value}".strip() for name, value in given.items() if value is not None]
    if tuple(arguments.scores) != DEFAULT_SCORES:
        parts.insert(0, " ".join(arguments.scores).replace("-", " "))
    mark = "-".join(filter(None, [PICTURE_MARK, picture_mark(*parts)]))
    noted = {"model": arguments.model and Path(arguments.model), "size": arguments.size, **_settings(arguments)}
    (picture,) = plan_pictures([(arguments.data or Path(SCENES_NAME)).resolve()], output, mark, noted)
    return picture
