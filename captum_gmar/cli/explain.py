"""``captum-gmar explain``: a picture of what fed the prediction, for each image."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import CAPTUMS, METHODS
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    MOST_LIKELY,
    TOKEN_FORMS,
    Top,
    above_zero,
    add_device_and_size,
    add_methods,
    command_parser,
    place,
    target,
    token,
)
from captum_gmar.cli.paths import FORMATS, PAGES, find_images, picture_mark, plan_array, plan_pictures
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.cli.image_settings import ExplainSettings

SCENE_NAME = "built-in-scene"
DEFAULT = ("gmar-l1",)

DESCRIPTION = """\
Explains the prediction of an image classifier with GMAR, with other methods, or
with several side by side. For each image it prints the most likely classes and
writes a picture of the photo as the model saw it and the relevance of its
patches. Without an image and a model it explains a built-in scene with the
built-in model, and needs no network.

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

OUTPUT = """\
picture for one image, or folder, which is made if it ends in a slash, for <image>-<method>.png, of several methods
<image>-comparison-<methods>.png; class, contrast and tokens, where they are given, stand in the name as well. An
existing file is replaced. Such pictures are known by a note in the file and left out when their folder is explained
"""


def add_command(subparsers: Any) -> None:
    """Declares the command and its arguments."""
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
    add("--save-array", type=place, metavar="FILE.npz", help=ARRAYS)
    add("--prompt", metavar="TEXT", help=PROMPT)
    add("--answer", metavar="TEXT", help="explain this answer, not the model's own")
    add_device_and_size(parser)
    add("--batch-size", type=above_zero, default=8, metavar="N", help="images explained at once")


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Runs the command; how many images were explained and how many failed."""
    if bool(arguments.images) != bool(arguments.model):
        raise CommandError("give images and --model, or neither for the built-in scene and model")
    if arguments.prompt is not None:
        return _run_prompt(arguments)
    if arguments.answer is not None:
        raise CommandError("--answer must go with --prompt. Got no prompt.")
    if arguments.text and not arguments.model:
        raise CommandError("--text must go with the --model that scores images against texts")
    settings = _settings(arguments)
    settings.check()
    images, missing = _find(arguments.images)
    if not images:
        return 0, missing
    pictures = plan_pictures(images, arguments.output, settings.mark())
    array = plan_array(arguments.save_array)
    with default_drawing():
        from captum_gmar.cli.explain_images import explain_images
        from captum_gmar.cli.sources import open_source

        source = open_source(arguments.model, arguments.size, arguments.device, settings.texts)
        done, failed = explain_images(source, dict(zip(images, pictures, strict=True)), array, settings)
    return done, failed + missing


def _find(images: Sequence[str]) -> tuple[list[Path], int]:
    """The images, or the built-in scene where none is named, and how many arguments name none."""
    return find_images(images) if images else ([Path(SCENE_NAME)], 0)


def _run_prompt(arguments: argparse.Namespace) -> tuple[int, int]:
    """Asks a model that answers; how many images were explained and how many failed."""
    others = {"methods": DEFAULT, "target": None, "text": None, "tokens": None, "save_array": None, "size": None}
    given = [name for name, usual in others.items() if getattr(arguments, name) != usual]
    if given:
        raise CommandError(f"--{given[0].replace('_', '-')} must go without --prompt, which explains every word.")
    images, missing = _find(arguments.images)
    if not images:
        return 0, missing
    mark = picture_mark("answer", arguments.prompt, arguments.answer or "")
    pages = plan_pictures(images, arguments.output, mark, PAGES)
    with default_drawing():
        from captum_gmar.cli.explain_answers import PromptSettings, explain_answers
        from captum_gmar.cli.sources import open_answering

        source = open_answering(arguments.model, arguments.device)
        settings = PromptSettings(arguments.prompt, arguments.answer, arguments.contrast)
        done, failed = explain_answers(source, dict(zip(images, pages, strict=True)), settings)
    return done, failed + missing


def _default_target(arguments: argparse.Namespace) -> Top:
    """All texts, where one method can tell them apart; else the most likely class."""
    texts = len(set(arguments.text or ())) - (arguments.contrast is not None)
    reads_class = len(arguments.methods) == 1 and METHODS[arguments.methods[0]].reads_class
    return Top(texts) if reads_class and texts > 1 else MOST_LIKELY


def _settings(arguments: argparse.Namespace) -> "ExplainSettings":
    from captum_gmar.cli.image_settings import ExplainSettings

    return ExplainSettings(
        methods=arguments.methods,
        target=_default_target(arguments) if arguments.target is None else arguments.target,
        contrast=arguments.contrast,
        tokens=tuple(dict.fromkeys(arguments.tokens or ())),
        texts=tuple(dict.fromkeys(arguments.text or ())),
        with_heads=arguments.save_array is not None,
        batch_size=arguments.batch_size,
    )
