"""``captum-gmar explain``: a heatmap of the prediction for each image, object, region, video, sound or answer."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_gmar.attr.catalogue import CAPTUMS, EXPLAINED, GMAR, METHODS, RECOMMENDED
from captum_gmar.cli.explain_settings import TASKS, ImageSettings, Task
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    TOKEN_FORMS,
    add_device_and_size,
    add_methods,
    box,
    command_parser,
    inches,
    place,
    point,
    positive_number,
    share,
    target,
    token,
)
from captum_gmar.cli.paths import FORMATS, PictureFile, find_images, plan_file, plan_pictures
from captum_gmar.cli.terminal import CommandError

SCENE_NAME = "built-in-scene"
CAPTION = "Where relevance can be negative, orange is for the class and blue against it."

DESCRIPTION = """\
Explains the prediction of an image classifier by token evidence and GMAR, or by
other methods side by side. For each image it prints the most likely classes and
writes a picture of the photo with the relevance of its patches over it. Without
an image and a model it explains a built-in scene with the built-in model, and
needs no network.

For detectors it explains one object, for segmenters the region of one class,
and for classifiers of videos or sounds a class, by token evidence. The model's
config says which of these it is.

With --prompt it asks a vision-language model, and writes an HTML page for each
image: every word of the answer with the patches that support it. Without an
image and a model it asks the built-in model about a scene, for example
--prompt "what is in the picture?". For WAV files and a speech recogniser, or an
audio language model with or without --prompt, the page has every word with the
sounds that support it.
"""

CLASSLESS = tuple(name for name, entry in METHODS.items() if not entry.reads_class)
FROM_TOKENS = tuple(name for name, entry in METHODS.items() if entry.takes_tokens and entry.reads_class)
FROM_ALL_LAYERS = tuple(name for name, entry in METHODS.items() if entry.takes_contrast and not entry.takes_tokens)


def _method_lines(names: Sequence[str]) -> str:
    return textwrap.fill(", ".join(names), 80, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


EPILOG = f"""\
methods ({RECOMMENDED} is recommended, {GMAR} is the paper's):
  with --tokens and --contrast:
{_method_lines(FROM_TOKENS)}
  with --contrast:
{_method_lines(FROM_ALL_LAYERS)}
  the same map for every class, so without --contrast and --target topK; with
  --tokens, except published-gmar:
{_method_lines(CLASSLESS)}
  Captum's, summed over each patch; occlusion and feature-ablation remove whole
  patches:
{_method_lines(CAPTUMS)}
  {CAPTION}

picture formats: {", ".join(FORMATS)}
exit status: 0 all images explained, 1 some failed, 2 bad usage or nothing done,
  130 interrupted
"""

ARRAYS = """\
also write a NumPy file with arrays for the N explained images: image (N,) file names; target (N,) class indices;
label (N,) class names; logits (N, classes); method (methods,) names; relevance (methods, N, rows, columns) of patches;
head_importance (N, layers, heads) of the first method whose name begins with gmar-, where each layer sums to 1. With
--target topK for K above 1, target, label, relevance and head_importance have a dimension of K classes, most likely
first, after N
"""

CITE = "also write a caption of the pictures, and the methods' papers as BibTeX"
TARGET = """\
class index, label, or topK for each image's K most likely classes, side by side, or in rows for several methods
(default: top1)
"""

CONTRAST = """\
class index or label: explain why the target rather than this class, which topK for K above 1 leaves out
"""

BUDGET = """\
budget of token-evidence for each map and class, in forward and backward passes (default: 1); NAME@K in --methods sets
it for one method
"""

PROMPT = """\
ask a vision-language model about each image, or an audio language model about each sound, and write a page of what
supports every word; only with IMAGE, --model, --answer, --contrast, --output and --device
"""

TEXT = """\
a class as text, for models that score images against texts, such as CLIP and SigLIP; repeat it for several. Without
--target all are explained, side by side by one method
"""

BOX = """\
for detectors: explain the object in this box, in pixels of the image, and with --target, of this class. Without both,
the most probable object
"""

MASK = """\
for segmenters: explain a class over the white of this picture, which is as large as the image. Without it and
--point, the region where the model predicts the class
"""

OUTPUT = """\
picture for one image, or folder, which is made if it ends in a slash, for <image>-<method>.png or, for several
methods, <image>-comparison-<methods>.png; the name also has class, contrast, tokens, size and other settings. Only a
picture of the same image, model and settings replaces a file, by a note in the file. Such pictures are not explained
with their folder. A file that ends in .html is a page of the 20 most likely classes, each with its evidence by these
methods and its score without the strongest patches
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "draw which patches support a prediction"
    parser = command_parser(subparsers, "explain", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("images", nargs="*", type=place, metavar="IMAGE", help="image file, or folder of them (not its subfolders)")
    add("--model", type=place, metavar="ID_OR_PATH", help="Hugging Face id or local folder")
    add_methods(parser, EXPLAINED, "of those below, side by side, or all")
    add("--target", type=target, metavar="CLASS", help=TARGET)
    add("--contrast", metavar="CLASS", help=CONTRAST)
    add("--passes", type=positive_number, metavar="K", help=BUDGET)
    add("--text", action="append", metavar="TEXT", help=TEXT)
    add(
        "--tokens",
        type=token,
        action="append",
        metavar="WHERE",
        help=f"where relevance begins, by default at the tokens that the classifier reads: {TOKEN_FORMS}; repeat it "
        "for several in equal parts",
    )
    add("--output", type=place, metavar="FILE_OR_FOLDER", help=OUTPUT)
    add("--share-scale", action="store_const", const=True, help="one colour scale for all maps of one unit")
    add("--width", type=inches, metavar="INCHES", help="width of a picture; letters keep their size")
    add("--cite", type=place, metavar="FILE.bib", help=CITE)
    add("--box", type=box, metavar="X0,Y0,X1,Y1", help=BOX)
    add("--threshold", type=share, metavar="P", help="least probability of a detector's object (default: 0.5)")
    add("--mask", type=place, metavar="FILE", help=MASK)
    add("--point", type=point, metavar="X,Y", help="for segmenters: explain a class at this pixel of the image")
    add(
        "--no-proof",
        action="store_true",
        default=None,
        help="do not remove patches for a page, which takes most of its time",
    )
    add("--save-array", type=place, metavar="FILE.npz", help=ARRAYS)
    add("--prompt", metavar="TEXT", help=PROMPT)
    add("--answer", metavar="TEXT", help="explain this answer or transcript, not the model's own")
    add_device_and_size(parser)
    add("--batch-size", type=positive_number, metavar="N", help="images explained at once (default: 8)")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Run the command, and return how many inputs were explained and how many failed."""
    if bool(arguments.images) != bool(arguments.model):
        raise CommandError("images and --model require each other, but got one. Pass both, or neither for the scene.")
    if arguments.text and not arguments.model:
        raise CommandError("--text requires --model, but got none. Pass a model that scores images against texts.")
    if arguments.mask is not None and arguments.point is not None:
        raise CommandError("--mask cannot be combined with --point. Pass one of both.")
    if arguments.prompt is None and arguments.answer is None:
        ImageSettings.from_arguments(arguments)  # an error before anything is loaded
    with default_drawing():  # before anything imports Matplotlib
        name = _find_task(arguments)
        task = TASKS[name]
        images, missing = [Path(SCENE_NAME)], 0  # built in
        if arguments.images:
            images, missing = find_images(arguments.images, task.inputs)
        if not images:
            return 0, missing
        settings = task.settings.from_arguments(arguments)
        pictures = _plan(arguments, task, settings, images)
        if name == "CLASSIFICATION":
            done, failed = _explain_images(arguments, settings, pictures)
        else:
            done, failed = _explain_others(arguments, name, settings, pictures)
    return done, failed + missing


def _find_task(arguments: argparse.Namespace) -> str:
    """Return the name of the task, whose options are checked."""
    name, words = "CLASSIFICATION", "classifies images"
    if arguments.model and not arguments.text:
        from captum_gmar.classifier.vision_task import find_task
        from captum_gmar.cli.sources import HUB_SECONDS

        task = find_task(arguments.model, HUB_SECONDS)
        name, words = task.name, task.value
    if arguments.prompt is not None and name != "SPEECH":
        name = "PROMPT"
    TASKS[name].check(arguments, words)
    return name


def _plan(arguments: argparse.Namespace, task: Task, settings: Any, images: Sequence[Path]) -> dict[Path, PictureFile]:
    noted = {"model": Path(arguments.model) if arguments.model else None, **settings._asdict()}
    pictures = plan_pictures(images, arguments.output, settings.mark, noted, task.formats)
    return dict(zip(images, pictures, strict=True))


def _explain_images(
    arguments: argparse.Namespace, settings: ImageSettings, pictures: dict[Path, PictureFile]
) -> tuple[int, int]:
    array = plan_file(arguments.save_array, ["npz"], "--save-array")
    citations = plan_file(arguments.cite, ["bib"], "--cite")
    from captum_gmar.attr.papers import cite_methods
    from captum_gmar.cli.explain_images import explain_images, is_over_one_grid
    from captum_gmar.cli.sources import open_source
    from captum_gmar.files.writing import write_text

    source = open_source(arguments.model, arguments.size, arguments.device, settings.texts)
    if not arguments.methods and RECOMMENDED in settings.methods and not is_over_one_grid(source):
        settings = settings._replace(methods=(RECOMMENDED,))
        pictures = _plan(arguments, TASKS["CLASSIFICATION"], settings, list(pictures))
    done, failed = explain_images(source, pictures, array, settings)
    if citations is not None and done:
        write_text(citations, cite_methods(settings.methods, f"Images: {done}. {CAPTION}"))
    return done, failed


def _explain_others(
    arguments: argparse.Namespace, name: str, settings: Any, pictures: dict[Path, PictureFile]
) -> tuple[int, int]:
    """Explain a model with another task, input by input."""
    from captum_gmar.cli.explain_tasks import EXPLAIN, explain_inputs
    from captum_gmar.cli.sources import open_for_task

    source = open_for_task(name, arguments.model, arguments.device)
    return explain_inputs(lambda path: EXPLAIN[name](source, path, settings), pictures)
