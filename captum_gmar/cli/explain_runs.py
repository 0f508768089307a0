"""The runs of ``captum-gmar explain``: of images, of what other models take, and of a prompt."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import MOST_LIKELY, Top
from captum_gmar.cli.paths import FILMS, FORMATS, PAGES, find_images, picture_mark, plan_array, plan_pictures
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.classifier.vision_task import VisionTask
    from captum_gmar.cli.image_settings import ExplainSettings

SCENE_NAME = "built-in-scene"
DEFAULT = ("gmar-l1",)
BATCH_SIZE = 8
ONE_FOR_ALL = ("attention-evidence",)  # the method for models that do not classify images
FOLDERS_OF = {"VIDEO": "video", "SOUND": "sound"}  # what a folder is taken to hold, by the name of the task
OF_OTHER_TASKS = ("box", "threshold", "mask", "point")  # options for such models alone


def run_images(arguments: argparse.Namespace) -> tuple[int, int]:
    """Explain images, or what another model takes; return how many were explained and how many failed."""
    settings = _image_settings(arguments)
    settings.check()
    with default_drawing():  # before it loads what loads Matplotlib
        task = _other_task(arguments)
        images, missing = _find(arguments.images, FOLDERS_OF.get(task.name if task else "", "image"))
        if not images:
            return 0, missing
        if task:
            done, failed = _run_task(arguments, task, images)
        else:
            done, failed = _run_classifier(arguments, settings, images)
    return done, failed + missing


def _run_classifier(
    arguments: argparse.Namespace, settings: "ExplainSettings", images: Sequence[Path]
) -> tuple[int, int]:
    """Explain a classifier of images."""
    model = _model_place(arguments)
    pictures = plan_pictures(images, arguments.output, settings.mark(), {"model": model, **vars(settings)})
    array = plan_array(arguments.save_array)
    from captum_gmar.cli.explain_images import explain_images
    from captum_gmar.cli.sources import open_source

    source = open_source(arguments.model, arguments.size, arguments.device, settings.texts)
    return explain_images(source, dict(zip(images, pictures, strict=True)), array, settings)


def _model_place(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.model) if arguments.model else None


def _find(images: Sequence[str], kind: str = "image") -> tuple[list[Path], int]:
    """The images, or the built-in scene where none is named, and how many arguments name none."""
    return find_images(images, kind) if images else ([Path(SCENE_NAME)], 0)


def _other_task(arguments: argparse.Namespace) -> "VisionTask | None":
    """What the model does, if that is not to classify images."""
    if not arguments.model or arguments.text:
        _check_without(arguments, OF_OTHER_TASKS, "the model classifies images")
        return None
    from captum_gmar.classifier.vision_task import VisionTask, find_task
    from captum_gmar.cli.sources import HUB_SECONDS

    task = find_task(arguments.model, HUB_SECONDS)
    known = {"box": VisionTask.DETECTION, "threshold": VisionTask.DETECTION}
    known |= {"mask": VisionTask.SEGMENTATION, "point": VisionTask.SEGMENTATION}
    _check_without(arguments, [name for name in OF_OTHER_TASKS if known[name] is not task], f"the model {task.value}")
    return None if task is VisionTask.CLASSIFICATION else task


def _run_task(arguments: argparse.Namespace, task: "VisionTask", inputs: Sequence[Path]) -> tuple[int, int]:
    """Of a model that does something else than classify images; how many inputs were explained and how many failed."""
    from captum_gmar.classifier.vision_task import VisionTask, load_for_task

    if tuple(arguments.methods or ONE_FOR_ALL) != ONE_FOR_ALL:
        raise CommandError(
            f"--methods must be {ONE_FOR_ALL[0]} for a model that {task.value}, as no other is defined for it. Got "
            f"{', '.join(arguments.methods)} instead."
        )
    of_classes = task in (VisionTask.VIDEO, VisionTask.SOUND)
    others = ["tokens", "save_array", "size", "batch_size", *([] if of_classes else ["contrast"])]
    _check_without(arguments, others, f"the model {task.value}")
    if isinstance(arguments.target, Top):
        raise CommandError(f"--target must be a class, as the model {task.value}. Got top{arguments.target.classes}.")
    from captum_gmar.classifier.loading import choose_device
    from captum_gmar.cli.explain_tasks import TaskSettings, explain_inputs
    from captum_gmar.cli.sources import HUB_SECONDS

    given = {name: getattr(arguments, name) for name in TaskSettings._fields if getattr(arguments, name) is not None}
    if "mask" in given:
        given["mask"] = Path(given["mask"])
    settings = TaskSettings(**given)
    formats = FORMATS + FILMS * (task is VisionTask.VIDEO)
    mark = "-".join(filter(None, [*ONE_FOR_ALL, _task_mark(given)]))
    noted = {"model": _model_place(arguments), **settings._asdict()}
    pictures = plan_pictures(inputs, arguments.output, mark, noted, formats)
    device = choose_device(arguments.device)
    classifier = load_for_task(arguments.model, task, device=device, patience=HUB_SECONDS)
    return explain_inputs(classifier, task, dict(zip(inputs, pictures, strict=True)), settings)


def _task_mark(given: Mapping[str, Any]) -> str:
    """Return what the names of pictures end in, of the settings that are given."""
    words = ("target", ""), ("contrast", "rather than"), ("box", "box"), ("threshold", "threshold"), ("mask", "over")
    parts = []
    for name, word in (*words, ("point", "at")):
        if name in given:
            value = given[name].stem if name == "mask" else given[name]
            parts.append(f"{word} {' '.join(map(str, value)) if isinstance(value, tuple) else value}".strip())
    return picture_mark(*parts)


def _check_without(arguments: argparse.Namespace, names: Sequence[str], why: str) -> None:
    given = [name for name in names if getattr(arguments, name) is not None]
    if given:
        raise CommandError(f"--{given[0].replace('_', '-')} must go with another model: {why}")


def run_prompt(arguments: argparse.Namespace) -> tuple[int, int]:
    """Asks a model that answers; how many images were explained and how many failed."""
    _check_prompt(arguments)
    images, missing = _find(arguments.images)
    if not images:
        return 0, missing
    asked = {name: getattr(arguments, name) for name in ("prompt", "answer", "contrast")}
    rather = "" if arguments.contrast is None else f"rather than {arguments.contrast}"
    mark = "-".join(["answer", picture_mark(arguments.prompt, arguments.answer or "", rather)])
    pages = plan_pictures(images, arguments.output, mark, {"model": _model_place(arguments), **asked}, PAGES)
    with default_drawing():
        from captum_gmar.cli.explain_answers import PromptSettings, explain_answers
        from captum_gmar.cli.sources import open_answering

        source = open_answering(arguments.model, arguments.device)
        done, failed = explain_answers(source, dict(zip(images, pages, strict=True)), PromptSettings(**asked))
    return done, failed + missing


def _check_prompt(arguments: argparse.Namespace) -> None:
    """Raise a CommandError where options do not go with --prompt, or with one another."""
    others = ["methods", "target", "text", "tokens", "save_array", "size", "batch_size", *OF_OTHER_TASKS]
    given = [name for name in others if getattr(arguments, name) is not None]
    if given:
        raise CommandError(f"--{given[0].replace('_', '-')} must go without --prompt, which explains every word.")
    if not arguments.prompt.strip():
        raise CommandError(f"--prompt must be text. Got {arguments.prompt!r} instead.")
    if arguments.contrast is not None:
        if arguments.answer is None:
            raise CommandError("--contrast must go with --answer, whose words it is set against. Got no answer.")
        if arguments.contrast.split() == arguments.answer.split():
            raise CommandError(f"--contrast must be another text than --answer. Got {arguments.contrast!r} for both.")


def _default_target(arguments: argparse.Namespace) -> Top:
    """All texts, where one method can tell them apart; else the most likely class."""
    texts = len(set(arguments.text or ())) - (arguments.contrast is not None)
    names = arguments.methods or DEFAULT
    reads_class = len(names) == 1 and METHODS[names[0]].reads_class
    return Top(texts) if reads_class and texts > 1 else MOST_LIKELY


def _image_settings(arguments: argparse.Namespace) -> "ExplainSettings":
    from captum_gmar.cli.image_settings import ExplainSettings

    return ExplainSettings(
        methods=arguments.methods or DEFAULT,
        target=_default_target(arguments) if arguments.target is None else arguments.target,
        contrast=arguments.contrast,
        tokens=tuple(dict.fromkeys(arguments.tokens or ())),
        texts=tuple(dict.fromkeys(arguments.text or ())),
        with_heads=arguments.save_array is not None,
        batch_size=arguments.batch_size or BATCH_SIZE,
        size=arguments.size,
    )
