"""``captum-gmar explain``: a heatmap of the prediction for each image, object, region, video, sound or answer."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_gmar.attr.catalogue import CAPTUMS, EXPLAINED, GMAR, METHODS, RECOMMENDED
from captum_gmar.cli.explain_settings import TASKS, ImageSettings, PromptSettings, Task
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

Of models that detect objects, segment images, or classify videos or sounds,
which their config tells, it explains one object, the places of one class, or a
class, by token evidence.

With --prompt it asks a vision-language model instead, and writes a page of HTML
for each image: every word of the answer with the patches that fed it. Without an
image and a model it asks the built-in one about a scene, such as --prompt "what
is in the picture?". Of a speech recogniser and WAV files it writes the same page, of
every word with the sounds that fed it.
"""

CLASSLESS = tuple(name for name, entry in METHODS.items() if not entry.reads_class)
FROM_TOKENS = tuple(name for name, entry in METHODS.items() if entry.takes_tokens and entry.reads_class)
FROM_ALL_LAYERS = tuple(name for name, entry in METHODS.items() if entry.takes_contrast and not entry.takes_tokens)


def _method_lines(names: Sequence[str]) -> str:
    return textwrap.fill(", ".join(names), 80, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


EPILOG = f"""\
methods, of which {RECOMMENDED} is recommended and {GMAR} the paper's:
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
  {CAPTION}

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

CITE = "also write the caption of the pictures, and the papers of their methods as BibTeX"
TARGET = """\
class index, label, or topK, each image's K most likely classes, side by side; of several methods a row for each class
(default: top1)
"""

CONTRAST = """\
class index or label: explain why the target rather than this class; topK for K above 1 leaves this class out
"""

BUDGET = """\
budget of token-evidence for each map and class, in passes forward and backward (default: 1); NAME@K in --methods is the
same for one of several
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
Such pictures are left out when their folder is explained. A file that ends in .html is a page of the 20 likeliest
classes, each with its evidence by these methods, and with its score without the strongest patches
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "draw which patches fed the prediction"
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
        help=f"where relevance begins, if not where the classifier reads: {TOKEN_FORMS}; several, in equal parts, by "
        "repeating it",
    )
    add("--output", type=place, metavar="FILE_OR_FOLDER", help=OUTPUT)
    add("--share-scale", action="store_const", const=True, help="one colour scale for all maps of one unit")
    add("--width", type=inches, metavar="INCHES", help="of a picture; letters keep their size")
    add("--cite", type=place, metavar="FILE.bib", help=CITE)
    add("--box", type=box, metavar="X0,Y0,X1,Y1", help=BOX)
    add("--threshold", type=share, metavar="P", help="probability that what a detector sees must have (default: 0.5)")
    add("--mask", type=place, metavar="FILE", help=MASK)
    add("--point", type=point, metavar="X,Y", help="of a segmenter: a class at this pixel of the image alone")
    add(
        "--no-proof",
        action="store_true",
        default=None,
        help="leave the removal of patches out of a page, which takes most of its time",
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
    if arguments.prompt is not None:
        name = "PROMPT"
    elif arguments.model and not arguments.text:
        from captum_gmar.classifier.vision_task import find_task
        from captum_gmar.cli.sources import HUB_SECONDS

        task = find_task(arguments.model, HUB_SECONDS)
        name, words = task.name, task.value
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
    what = "page" if isinstance(settings, PromptSettings) else "picture"
    return explain_inputs(lambda path: EXPLAIN[name](source, path, settings), pictures, what)
