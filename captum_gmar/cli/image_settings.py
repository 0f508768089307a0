"""What explain and compare ask of their images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from captum_gmar.attr.catalogue import COMPARED
from captum_gmar.cli.options import MOST_LIKELY, Top, check_taken
from captum_gmar.cli.paths import COMPARISON_MARK, comparison_mark, picture_mark
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.engine.models.readout_tokens import Part


@dataclass(frozen=True)
class ExplainSettings:
    """What is asked of every image."""

    methods: tuple[str, ...]
    target: Top | str = MOST_LIKELY
    contrast: str | None = None
    tokens: "tuple[Part, ...]" = ()
    texts: tuple[str, ...] = ()  # the classes, in place of the model's own
    with_heads: bool = False  # whether head importance is wanted as well
    batch_size: int = 8
    size: int | None = None  # of the pixels; None: the model's own

    @property
    def top(self) -> int:
        """How many classes of each image are explained."""
        return self.target.classes if isinstance(self.target, Top) else 1

    def check(self) -> None:
        """
        Raises:
            CommandError: if the methods do not take what is asked of them.
        """
        if self.tokens:
            check_taken("--tokens", self.methods, lambda method: method.takes_tokens)
        if self.contrast is not None:
            check_taken("--contrast", self.methods, lambda method: method.takes_contrast)
        if self.top > 1:
            option = f"--target top{self.top}"
            check_taken(option, self.methods, lambda method: method.reads_class)
            if len(self.methods) > 1:
                raise CommandError(f"{option} must go with one method. Got {', '.join(self.methods)} instead.")

    def mark(self) -> str:
        """What the names of pictures end in."""
        parts = ["of", *self.texts] if self.texts else []
        if isinstance(self.target, str):
            parts.append(self.target)
        elif self.target.classes > 1 and not self.texts:
            parts.append(str(self.target))
        if self.contrast is not None:
            parts.append(f"rather than {self.contrast}")
        if self.tokens:
            starts = (f"{part[0]} {part[1]}" if isinstance(part, tuple) else part for part in self.tokens)
            parts.append(f"from {' and '.join(starts)}")
        if self.size is not None:
            parts.append(f"size {self.size}")
        several = len(self.methods) > 1
        mark = comparison_mark("comparison", self.methods) if several else self.methods[0]
        return "-".join(filter(None, [mark, picture_mark(*parts)]))


@dataclass(frozen=True)
class CompareSettings:
    """What is asked of the image."""

    methods: tuple[str, ...] | None = None  # None: the usual ones that explain the model
    target: str | None = None  # None: the most likely class
    removal: str = "blur"
    steps: int | None = None  # None: 28, or as many as there are patches
    ig_steps: int = 50
    batch_size: int | None = None
    size: int | None = None  # of the pixels; None: the model's own

    def mark(self) -> str:
        """Return what the name of the picture ends in."""
        parts = [self.target or "", "" if self.removal == CompareSettings.removal else f"removal {self.removal}"]
        numbers = {"steps": self.steps, "size": self.size}
        numbers["ig steps"] = None if self.ig_steps == CompareSettings.ig_steps else self.ig_steps
        parts += [f"{name} {number}" for name, number in numbers.items() if number is not None]
        mark = comparison_mark(COMPARISON_MARK, self.methods or COMPARED, COMPARED)
        return "-".join(filter(None, [mark, picture_mark(*parts)]))
