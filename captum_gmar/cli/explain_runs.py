"""The runs of ``captum-gmar explain``: on images, on the inputs of other models, and with a prompt."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import MOST_LIKELY, ExplainSettings, Top
from captum_gmar.cli.paths import (
    FILMS,
    FORMATS,
    PAGES,
    comparison_mark,
    find_images,
    picture_mark,
    plan_array,
    plan_pictures,
)
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.classifier.vision_task import VisionTask

SCENE_NAME = "built-in-scene"
DEFAULT = ("gmar-l1",)
ONE_FOR_ALL = ("attention-evidence",)  # the method for models that do not classify images
FOLDERS_OF = {"VIDEO": "video", "SOUND": "sound"}  # the kind of files in a folder, by the name of the task
TASK_OPTIONS = {"box": "DETECTION", "threshold": "DETECTION", "mask": "SEGMENTATION", "point": "SEGMENTATION"}
MARKS = {"target": "", "contrast": "rather than", "box": "box", "threshold": "threshold", "mask": "over", "point": "at"}


def run_images(arguments: argparse.Namespace) -> tuple[int, int]:
    """Explain images, or inputs of another model; return how many were explained and how many failed."""
    settings = _image_settings(arguments)
    settings.check()
    with default_drawing():  # before anything imports Matplotlib
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
    arguments: argparse.Namespace, settings: ExplainSettings, images: Sequence[Path]
) -> tuple[int, int]:
    """Explain a classifier of images."""
    pictures = plan_pictures(
        images, arguments.output, _image_mark(settings), {"model": _model_path(arguments), **settings._asdict()}
    )
    array = plan_array(arguments.save_array)
    from captum_gmar.cli.explain_images import explain_images
    from captum_gmar.cli.sources import open_source

    source = open_source(arguments.model, arguments.size, arguments.device, settings.texts)
    return explain_images(source, dict(zip(images, pictures, strict=True)), array, settings)


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
    if settings.size is not None:
        parts.append(f"size {settings.size}")
    several = len(settings.methods) > 1
    mark = comparison_mark("comparison", settings.methods) if several else settings.methods[0]
    return "-".join(filter(None, [mark, picture_mark(*parts)]))


def _model_path(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.model) if arguments.model else None


def _find(images: Sequence[str], kind: str = "image") -> tuple[list[Path], int]:
    """Return the images, or the built-in scene without any, and how many arguments name none."""
    return find_images(images, kind) if images else ([Path(SCENE_NAME)], 0)


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
    if tuple(arguments.methods or ONE_FOR_ALL) != ONE_FOR_ALL:
        raise CommandError(
            f"--methods must be {ONE_FOR_ALL[0]} for a model that {task.value}, as no other is defined for it. Got "
            f"{', '.join(arguments.methods)} instead."
        )
    others = ["tokens", "save_array", "size", "batch_size", *([] if task.name in FOLDERS_OF else ["contrast"])]
    _check_without(arguments, others, f"the model {task.value}")
    if isinstance(arguments.target, Top):
        raise CommandError(f"--target must be a class, as the model {task.value}. Got top{arguments.target.classes}.")
    from captum_gmar.classifier.loading import choose_device
    from captum_gmar.classifier.vision_task import load_for_task
    from captum_gmar.cli.explain_tasks import TaskSettings, explain_inputs
    from captum_gmar.cli.sources import HUB_SECONDS

    given = {name: getattr(arguments, name) for name in MARKS if getattr(arguments, name) is not None}
    if "mask" in given:
        given["mask"] = Path(given["mask"])
    formats = FORMATS + FILMS * (task.name == "VIDEO")
    mark = "-".join(filter(None, [*ONE_FOR_ALL, _task_mark(given)]))
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
        raise CommandError(f"--{given[0].replace('_', '-')} must go with another model: {why}")


def run_prompt(arguments: argparse.Namespace) -> tuple[int, int]:
    """Explain the answers of a model to a prompt; return how many images were explained and how many failed."""
    _check_prompt(arguments)
    images, missing = _find(arguments.images)
    if not images:
        return 0, missing
    asked = {name: getattr(arguments, name) for name in ("prompt", "answer", "contrast")}
    contrast = "" if arguments.contrast is None else f"rather than {arguments.contrast}"
    mark = f"answer-{picture_mark(arguments.prompt, arguments.answer or '', contrast)}"
    pages = plan_pictures(images, arguments.output, mark, {"model": _model_path(arguments), **asked}, PAGES)
    with default_drawing():
        from captum_gmar.cli.explain_answers import PromptSettings, explain_answers
        from captum_gmar.cli.sources import open_answering

        source = open_answering(arguments.model, arguments.device)
        done, failed = explain_answers(source, dict(zip(images, pages, strict=True)), PromptSettings(**asked))
    return done, failed + missing


def _check_prompt(arguments: argparse.Namespace) -> None:
    """Raise a CommandError if options do not go with --prompt, or with one another."""
    others = ["methods", "target", "text", "tokens", "save_array", "size", "batch_size", *TASK_OPTIONS]
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
    """Return all texts, if one method can tell them apart; else the most likely class."""
    texts = len(set(arguments.text or ())) - (arguments.contrast is not None)
    names = arguments.methods or DEFAULT
    reads_class = len(names) == 1 and METHODS[names[0]].reads_class
    return Top(texts) if reads_class and texts > 1 else MOST_LIKELY


def _image_settings(arguments: argparse.Namespace) -> ExplainSettings:
    return ExplainSettings(
        methods=arguments.methods or DEFAULT,
        target=_default_target(arguments) if arguments.target is None else arguments.target,
        contrast=arguments.contrast,
        tokens=tuple(dict.fromkeys(arguments.tokens or ())),
        texts=tuple(dict.fromkeys(arguments.text or ())),
        with_heads=arguments.save_array is not None,
        batch_size=arguments.batch_size or ExplainSettings._field_defaults["batch_size"],
        size=arguments.size,
    )
