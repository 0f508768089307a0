"""``captum-gmar explain``: a heatmap of the prediction for each image, object, region, video, sound or answer."""

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import CAPTUMS, EXPLAINED, GMAR, METHODS, RECOMMENDED
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    MOST_LIKELY,
    TOKEN_FORMS,
    ExplainSettings,
    Top,
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
    with_passes,
)
from captum_gmar.cli.paths import (
    FILMS,
    FORMATS,
    PAGES,
    PictureFile,
    comparison_mark,
    find_images,
    picture_mark,
    plan_file,
    plan_pictures,
)
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.classifier.vision_task import VisionTask

SCENE_NAME = "built-in-scene"
CAPTION = "Where relevance can be negative, orange is for the class and blue against it."
FOLDERS_OF = {"VIDEO": "video", "SOUND": "sound", "SPEECH": "sound"}  # the kind of files in a folder, by task
DRAWING = ("share_scale", "width", "cite")
TASK_OPTIONS = {"box": "DETECTION", "threshold": "DETECTION", "mask": "SEGMENTATION", "point": "SEGMENTATION"}
MARKS = {"target": "", "contrast": "rather than", "box": "box", "threshold": "threshold", "mask": "over", "point": "at"}

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
    if arguments.prompt is not None:
        _check_answer(arguments)
    if arguments.text and not arguments.model:
        raise CommandError("--text requires --model, but got none. Pass a model that scores images against texts.")
    if arguments.mask is not None and arguments.point is not None:
        raise CommandError("--mask cannot be combined with --point. Pass one of both.")
    settings = _image_settings(arguments)
    if arguments.prompt is None and arguments.answer is None:
        _check_page(arguments)
        settings.check()
    with default_drawing():  # before anything imports Matplotlib
        task = None if arguments.prompt is not None else _other_task(arguments)
        images, missing = [Path(SCENE_NAME)], 0  # built in
        if arguments.images:
            images, missing = find_images(arguments.images, FOLDERS_OF.get(task.name if task else "", "image"))
        if not images:
            return 0, missing
        if arguments.prompt is not None or (task and task.name == "SPEECH"):
            done, failed = _explain_prompt(arguments, images)
        elif arguments.answer is not None:
            raise CommandError("--answer requires --prompt or a model of speech, but got neither. Pass one of them.")
        elif task:
            done, failed = _run_task(arguments, task, images)
        else:
            done, failed = _run_classifier(arguments, settings, images)
    return done, failed + missing


def _run_classifier(
    arguments: argparse.Namespace, settings: ExplainSettings, images: Sequence[Path]
) -> tuple[int, int]:
    """Explain a classifier of images."""
    pictures = _plan(arguments, settings, images)
    array = plan_file(arguments.save_array, ["npz"], "--save-array")
    citations = plan_file(arguments.cite, ["bib"], "--cite")
    from captum_gmar.attr.papers import cite_methods
    from captum_gmar.cli.explain_images import explain_images, is_over_one_grid
    from captum_gmar.cli.sources import open_source
    from captum_gmar.files.writing import write_text

    source = open_source(arguments.model, arguments.size, arguments.device, settings.texts)
    if not arguments.methods and RECOMMENDED in settings.methods and not is_over_one_grid(source):
        settings = settings._replace(methods=(RECOMMENDED,))
        pictures = _plan(arguments, settings, images)
    done, failed = explain_images(source, pictures, array, settings)
    if citations is not None and done:
        write_text(citations, cite_methods(settings.methods, f"Images: {done}. {CAPTION}"))
    return done, failed


def _plan(arguments: argparse.Namespace, settings: ExplainSettings, images: Sequence[Path]) -> dict[Path, PictureFile]:
    noted, formats = {"model": _model_path(arguments), **settings._asdict()}, FORMATS + PAGES
    pictures = plan_pictures(images, arguments.output, _image_mark(settings), noted, formats)
    return dict(zip(images, pictures, strict=True))


def _is_page(arguments: argparse.Namespace) -> bool:
    return arguments.output is not None and Path(arguments.output).suffix.lower()[1:] in PAGES


def _check_page(arguments: argparse.Namespace) -> None:
    """Raise a CommandError if --output is a page and options do not go with it, as it holds all likely classes."""
    for name in ("target", "contrast", "tokens", *DRAWING) if _is_page(arguments) else ():
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise CommandError(f"--{option} requires a picture, but got a page. Pass another --output.")
    if arguments.no_proof and not _is_page(arguments):
        raise CommandError("--no-proof requires a page, but got none. Pass --output page.html.")


def _image_mark(settings: ExplainSettings) -> str:
    """Return the end of the pictures' names."""
    parts = ["of", *settings.texts] if settings.texts else []
    if isinstance(settings.target, str):
        parts.append(settings.target)
    elif settings.target.classes > 1 and not settings.texts:
        parts.append(str(settings.target))
    if settings.contrast is not None:
        parts.append(f"rather than {settings.contrast}")
    if settings.tokens:
        starts = (f"{part[0]} {part[1]}" if isinstance(part, tuple) else part for part in settings.tokens)
        parts.append(f"from {' and '.join(starts)}")
    parts += [f"{name} {value:g}" for name in ("size", "width") if (value := getattr(settings, name)) is not None]
    if settings.share_scale:
        parts.append("one scale")
    several = len(settings.methods) > 1
    mark = comparison_mark("comparison", settings.methods) if several else settings.methods[0]
    return "-".join(filter(None, [mark, picture_mark(*parts)]))


def _model_path(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.model) if arguments.model else None


def _other_task(arguments: argparse.Namespace) -> "VisionTask | None":
    """Return the model's task; None if that is to classify images."""
    if not arguments.model or arguments.text:
        _check_without(arguments, TASK_OPTIONS, "the model classifies images")
        return None
    from captum_gmar.classifier.vision_task import VisionTask, find_task
    from captum_gmar.cli.sources import HUB_SECONDS

    task = find_task(arguments.model, HUB_SECONDS)
    others = [option for option, name in TASK_OPTIONS.items() if name != task.name]
    _check_without(arguments, others, f"the model {task.value}")
    return None if task is VisionTask.CLASSIFICATION else task


def _run_task(arguments: argparse.Namespace, task: "VisionTask", inputs: Sequence[Path]) -> tuple[int, int]:
    """Explain a model with another task; return how many inputs were explained and how many failed."""
    if tuple(arguments.methods or [RECOMMENDED]) != (RECOMMENDED,):
        raise CommandError(
            f"--methods must be {RECOMMENDED} for a model that {task.value}, as no other is defined for it, but got "
            f"{', '.join(arguments.methods)}."
        )
    others = ["tokens", "passes", "save_array", "size", "batch_size", *DRAWING]
    others += [] if task.name in FOLDERS_OF else ["contrast"]
    _check_without(arguments, others, f"the model {task.value}")
    if isinstance(arguments.target, Top):
        raise CommandError(f"--target must be a class: the model {task.value}, but got top{arguments.target.classes}.")
    from captum_gmar.classifier.loading import choose_device
    from captum_gmar.classifier.vision_task import load_for_task
    from captum_gmar.cli.explain_tasks import TaskSettings, explain_inputs
    from captum_gmar.cli.sources import HUB_SECONDS

    given = {name: getattr(arguments, name) for name in MARKS if getattr(arguments, name) is not None}
    if "mask" in given:
        given["mask"] = Path(given["mask"])
    formats = FORMATS + FILMS * (task.name == "VIDEO")
    mark = "-".join(filter(None, [RECOMMENDED, _task_mark(given)]))
    settings = TaskSettings(**given)
    noted = {"model": _model_path(arguments), **settings._asdict()}
    pictures = plan_pictures(inputs, arguments.output, mark, noted, formats)
    device = choose_device(arguments.device)
    classifier = load_for_task(arguments.model, task, device=device, patience=HUB_SECONDS)
    return explain_inputs(classifier, task, dict(zip(inputs, pictures, strict=True)), settings)


def _task_mark(given: Mapping[str, Any]) -> str:
    """Return the end of the pictures' names for the settings that are given."""
    values = {name: value.stem if name == "mask" else value for name, value in given.items()}
    texts = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}
    return picture_mark(*(f"{word} {texts[name]}".strip() for name, word in MARKS.items() if name in texts))


def _check_without(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    given = [name for name in names if getattr(arguments, name) is not None]
    if given:
        raise CommandError(f"--{given[0].replace('_', '-')} requires another model, but {why}. Remove it.")


def _explain_prompt(arguments: argparse.Namespace, images: Sequence[Path]) -> tuple[int, int]:
    """Explain the answers of a model to a prompt, or its transcripts; return the numbers of explained and failed."""
    _check_answer(arguments)
    question = {name: getattr(arguments, name) for name in ("prompt", "answer", "contrast")}
    question["prompt"] = question["prompt"] or ""
    contrast = "" if arguments.contrast is None else f"rather than {arguments.contrast}"
    mark = f"answer-{picture_mark(question['prompt'], arguments.answer or '', contrast)}".rstrip("-")
    formats = PAGES + FILMS * bool(question["prompt"])  # films are of pictures
    pages = plan_pictures(images, arguments.output, mark, {"model": _model_path(arguments), **question}, formats)
    from captum_gmar.cli.explain_answers import PromptSettings, explain_answers
    from captum_gmar.cli.sources import open_answering

    source = open_answering(arguments.model, arguments.device)
    return explain_answers(source, dict(zip(images, pages, strict=True)), PromptSettings(**question))


def _check_answer(arguments: argparse.Namespace) -> None:
    """Raise a CommandError if options do not go with the words of an answer, or with one another."""
    others = ["methods", "target", "text", "tokens", "passes", "save_array", "no_proof", "size", "batch_size"]
    others += [*DRAWING, *TASK_OPTIONS]
    given = [name for name in others if getattr(arguments, name) is not None]
    if given:
        what = "--prompt, which" if arguments.prompt is not None else "a model of speech, which"
        raise CommandError(f"--{given[0].replace('_', '-')} cannot be combined with {what} has every word. Remove it.")
    if arguments.prompt is not None and not arguments.prompt.strip():
        raise CommandError(f"--prompt must be text, but got {arguments.prompt!r}.")
    if arguments.contrast is not None:
        if arguments.answer is None:
            raise CommandError("--contrast requires --answer, whose words it is set against, but got none. Pass both.")
        if arguments.contrast.split() == arguments.answer.split():
            raise CommandError(f"--contrast must differ from --answer, but got {arguments.contrast!r} for both.")


def _default_target(arguments: argparse.Namespace) -> Top:
    """Return all texts, if one method can tell them apart; else the most likely class."""
    if _is_page(arguments):
        return MOST_LIKELY
    texts = len(set(arguments.text or ())) - (arguments.contrast is not None)
    names = arguments.methods or [RECOMMENDED]
    reads_class = len(names) == 1 and METHODS[names[0]].reads_class
    return Top(texts) if reads_class and texts > 1 else MOST_LIKELY


def _default_methods(arguments: argparse.Namespace, target: Top | str) -> tuple[str, ...]:
    """Return the recommended method and GMAR, or the one that takes the options."""
    if arguments.tokens:
        return (GMAR,)
    is_of_classes = isinstance(target, Top) and target.classes > 1
    return (RECOMMENDED,) if is_of_classes or arguments.passes else EXPLAINED


def _image_settings(arguments: argparse.Namespace) -> ExplainSettings:
    target = _default_target(arguments) if arguments.target is None else arguments.target
    return ExplainSettings(
        methods=with_passes(arguments.methods or _default_methods(arguments, target), arguments.passes),
        target=target,
        contrast=arguments.contrast,
        tokens=tuple(dict.fromkeys(arguments.tokens or ())),
        texts=tuple(dict.fromkeys(arguments.text or ())),
        with_heads=arguments.save_array is not None,
        batch_size=arguments.batch_size or ExplainSettings._field_defaults["batch_size"],
        size=arguments.size,
        share_scale=arguments.share_scale,
        width=arguments.width,
        with_proof=_is_page(arguments) and not arguments.no_proof,
    )
