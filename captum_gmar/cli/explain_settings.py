"""The tasks of ``captum-gmar explain``, which options each takes, and its settings."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from captum_gmar.attr.catalogue import EXPLAINED, GMAR, METHODS, RECOMMENDED
from captum_gmar.cli.options import MOST_LIKELY, Top, check_taken, with_passes
from captum_gmar.cli.paths import FILMS, FORMATS, PAGES, comparison_mark, picture_mark
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.classifier.photo_frame import Corners
    from captum_gmar.engine.models.readout_tokens import Part

NO_PAGE = ("target", "contrast", "tokens", "share_scale", "width", "cite")  # a page holds all likely classes


class ImageSettings(NamedTuple):
    """The question to a classifier of images."""

    methods: tuple[str, ...]
    target: Top | str = MOST_LIKELY
    contrast: str | None = None
    tokens: "tuple[Part, ...]" = ()
    texts: tuple[str, ...] = ()  # the classes, in place of the model's own
    with_heads: bool = False  # also compute head importance
    batch_size: int = 8
    size: int | None = None  # of the pixels; None: the model's own
    share_scale: bool | None = None  # one scale for all maps of one unit
    width: float | None = None  # inches of a picture
    with_proof: bool = False  # pages remove patches, too

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "ImageSettings":
        """Return the settings that the options ask for, checked."""
        is_page = arguments.output is not None and Path(arguments.output).suffix.lower()[1:] in PAGES
        for name in NO_PAGE if is_page else ():
            if getattr(arguments, name) is not None:
                raise CommandError(
                    f"{_option(name)} requires a picture, but got a page, which holds all likely classes. Leave it out."
                )
        if arguments.no_proof and not is_page:
            raise CommandError("--no-proof requires a page, but got none. Pass --output page.html.")
        default_target = MOST_LIKELY if is_page else _default_target(arguments)
        target = default_target if arguments.target is None else arguments.target
        settings = cls(
            methods=with_passes(arguments.methods or _default_methods(arguments, target), arguments.passes),
            target=target,
            tokens=tuple(dict.fromkeys(arguments.tokens or ())),
            texts=tuple(dict.fromkeys(arguments.text or ())),
            with_heads=arguments.save_array is not None,
            batch_size=arguments.batch_size or cls._field_defaults["batch_size"],
            with_proof=is_page and not arguments.no_proof,
            **{name: getattr(arguments, name) for name in ("contrast", "size", "share_scale", "width")},
        )
        settings._check()
        return settings

    @property
    def top(self) -> int:
        """The number of classes to explain for each image."""
        return self.target.classes if isinstance(self.target, Top) else 1

    @property
    def mark(self) -> str:
        """The end of the pictures' names."""
        parts = ["of", *self.texts] if self.texts else []
        if isinstance(self.target, str) or (self.top > 1 and not self.texts):
            parts.append(str(self.target))
        if self.contrast is not None:
            parts.append(f"rather than {self.contrast}")
        if self.tokens:
            starts = (f"{part[0]} {part[1]}" if isinstance(part, tuple) else part for part in self.tokens)
            parts.append(f"from {' and '.join(starts)}")
        parts += [f"{name} {value:g}" for name in ("size", "width") if (value := getattr(self, name)) is not None]
        if self.share_scale:
            parts.append("one scale")
        several = len(self.methods) > 1
        mark = comparison_mark("comparison", self.methods) if several else self.methods[0]
        return "-".join(filter(None, [mark, picture_mark(*parts)]))

    def _check(self) -> None:
        """Check that the methods take the options."""
        if self.tokens:
            check_taken("--tokens", self.methods, lambda method: method.takes_tokens)
        if self.contrast is not None:
            check_taken("--contrast", self.methods, lambda method: method.takes_contrast)
        if self.share_scale and self.top == len(self.methods) == 1:
            raise CommandError("--share-scale requires several maps, but got one. Pass more methods or classes.")
        if self.top > 1:
            check_taken(f"--target top{self.top}", self.methods, lambda method: method.reads_class)


def _default_target(arguments: argparse.Namespace) -> Top:
    """Return all texts, if one method can tell them apart; else the most likely class."""
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


class TaskSettings(NamedTuple):
    """The question to a model that detects, segments, or classifies videos or sounds."""

    target: str | None = None  # None: the model's surest prediction
    contrast: str | None = None
    box: "Corners | None" = None
    threshold: float = 0.5
    mask: Path | None = None
    point: tuple[float, float] | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "TaskSettings":
        """Return the settings that the options ask for."""
        given = {name: value for name in cls._fields if (value := getattr(arguments, name)) is not None}
        return cls(**given | ({"mask": Path(given["mask"])} if "mask" in given else {}))

    @property
    def mark(self) -> str:
        """The end of the pictures' names."""
        words = {"target": "", "contrast": "rather than", "mask": "over", "point": "at"}
        parts = []
        for name, value in self._asdict().items():
            if value != self._field_defaults[name]:
                text = " ".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "stem", value)
                parts.append(f"{words.get(name, name)} {text}".strip())
        return "-".join(filter(None, [RECOMMENDED, picture_mark(*parts)]))


class PromptSettings(NamedTuple):
    """The prompt, empty for speech, the answer if it is given, and its contrast."""

    prompt: str
    answer: str | None = None
    contrast: str | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "PromptSettings":
        """Return the settings that the options ask for, checked."""
        prompt, answer, contrast = arguments.prompt, arguments.answer, arguments.contrast
        if prompt is not None and not prompt.strip():
            raise CommandError(f"--prompt must be text, but got {prompt!r}.")
        if contrast is not None and answer is None:
            raise CommandError("--contrast requires --answer, but got none. Pass the words that it is set against.")
        if contrast is not None and contrast.split() == answer.split():
            raise CommandError(f"--contrast must differ from --answer, but got {contrast!r} for both.")
        return cls(prompt or "", answer, contrast)

    @property
    def mark(self) -> str:
        """The end of the pages' names."""
        contrast = "" if self.contrast is None else f"rather than {self.contrast}"
        return f"answer-{picture_mark(self.prompt, self.answer or '', contrast)}".rstrip("-")


class Task(NamedTuple):
    """A question to one kind of models, and the kind of its inputs."""

    takes: tuple[str, ...]  # options, beside those of every task
    settings: Any  # one of the classes above
    inputs: str = "image"  # the kind of files in a folder
    formats: Sequence[str] = FORMATS

    def check(self, arguments: argparse.Namespace, words: str) -> None:
        """Check that no option is given that the task does not take; ``words`` say what the model does."""
        for name in OPTIONS:
            if getattr(arguments, name) is None or name in self.takes:
                continue
            if self.settings is PromptSettings:
                what = "a model of speech" if arguments.prompt is None else "--prompt"
                raise CommandError(f"{_option(name)} cannot be combined with {what}: it explains every word. Drop it.")
            if name == "answer":
                raise CommandError(
                    "--answer requires --prompt or a model of speech, but got neither. Pass one of them."
                )
            raise CommandError(f"{_option(name)} requires another model, but the model {words}. Remove it.")
        if self.settings is TaskSettings:
            if tuple(arguments.methods or [RECOMMENDED]) != (RECOMMENDED,):
                raise CommandError(
                    f"--methods must be {RECOMMENDED} for a model that {words}, as no other is defined for it, "
                    f"but got {', '.join(arguments.methods)}."
                )
            if isinstance(arguments.target, Top):
                raise CommandError(f"--target must be a class: the model {words}, but got {arguments.target}.")


_OF_CLASSES = ("methods", "target", "contrast")
# By the names of `captum_gmar.classifier.vision_task`, and PROMPT.
TASKS = {
    "CLASSIFICATION": Task(
        (*_OF_CLASSES, *("passes", "text", "tokens", "save_array", "no_proof", "size", "batch_size"), *NO_PAGE[3:]),
        ImageSettings,
        formats=FORMATS + PAGES,
    ),
    "DETECTION": Task(("methods", "target", "box", "threshold"), TaskSettings),
    "SEGMENTATION": Task(("methods", "target", "mask", "point"), TaskSettings),
    "VIDEO": Task(_OF_CLASSES, TaskSettings, "video", FORMATS + FILMS),
    "SOUND": Task(_OF_CLASSES, TaskSettings, "sound"),
    "SPEECH": Task(("prompt", "answer", "contrast"), PromptSettings, "sound", PAGES),
    "PROMPT": Task(("prompt", "answer", "contrast"), PromptSettings, formats=PAGES + FILMS),
}
OPTIONS = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.takes))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
