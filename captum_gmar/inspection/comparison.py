"""What comes of comparing methods on one image: numbers, and the tables and pictures of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from captum_gmar.files.markdown import table
from captum_gmar.inspection.picture import Cost, MethodResult, time_text, visualize_side_by_side
from captum_gmar.visualization._style import milliseconds_text, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_gmar.visualization._heatmap import Pixels

HEADER = (
    *("method", "insertion ↑", "deletion ↓", "difference ↑"),
    *("time, ms", "× forward pass", "passes forward", "backward"),
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of :func:`compare`. A notebook shows it as its table; so does ``print``."""

    methods: tuple[MethodResult, ...]  # what was measured of each, in the given order
    controls: tuple[MethodResult, ...]  # the same of random map, uniform map and centre blob
    target: int | None  # the class that was explained and followed; None for a model with one output
    score: float  # of the whole image: the target's probability or, without softmax, output
    is_probability: bool
    removal: str  # of patches, for insertion and deletion
    steps: int  # of the curves
    device: str

    @property
    def followed(self) -> str:
        """Name of what the curves follow, in axes and captions."""
        what = "probability" if self.is_probability else "output"
        return f"{what} of class {self.target}" if self.target is not None else what

    @property
    def caption(self) -> str:
        """Caption of the picture: image, removal, and that one image has no interval."""
        return f"One image, so no interval. Curves: {self.followed}, {self.steps} steps; removal: {self.removal}."

    def records(self) -> list[dict[str, Any]]:
        """Return a row of plain values for every method and control: ``pandas.DataFrame(comparison.records())``."""
        return [self._record(result) for result in (*self.methods, *self.controls)]

    def to_markdown(self) -> str:
        """Return the table, and below it what its numbers mean."""
        rows = map(_row_of, (*self.methods, *self.controls))
        return f"{table(HEADER, rows)}\n\n{self._note()}"

    def visualize(self, image: "Pixels", **options: Any) -> "tuple[Figure, list[list[Axes]]]":
        """Draw the photo, and of every method its map over it, its curves and its costs; return the figure and pairs of
        axes.

        ``options`` are those of :func:`captum_gmar.inspection.picture.visualize_side_by_side`.
        """
        return visualize_side_by_side(
            self.methods,
            self.controls[0],
            image,
            followed=self.followed,
            is_probability=self.is_probability,
            removal=self.removal,
            **options,
        )

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _record(self, result: MethodResult) -> dict[str, Any]:
        cost = result.cost
        return {
            "method": result.name,
            "is_control": cost is None,
            **dict(zip(("insertion", "deletion", "difference"), result.areas, strict=True)),
            **(cost._asdict() if cost else dict.fromkeys(Cost._fields)),
            "ratio": cost.ratio if cost else None,
            "target": self.target,
            "removal": self.removal,
            "steps": self.steps,
        }

    def _note(self) -> str:
        *first, last = (result.name for result in self.controls)
        (seconds,) = {result.cost.forward_seconds for result in self.methods if result.cost}
        score = number_text(self.score, ".3f")
        return (
            f"Insertion and deletion follow the {self.followed}, {score} for the whole image, over {self.steps} steps; "
            f"removal: {self.removal}. ↑ higher is better, ↓ lower. {', '.join(first)} and {last} know nothing of the "
            f"model. Times are medians on {self.device}, in brackets the quickest and the slowest run; a forward pass "
            f"takes {milliseconds_text(seconds)} ms there. Passes count images."
        )


def _row_of(result: MethodResult) -> tuple[str, ...]:
    areas, cost = (number_text(area, ".3f") for area in result.areas), result.cost
    if cost is None:
        return result.name, *areas, "", "", "", ""
    counts = ("not known" if count is None else str(count) for count in (cost.forward_passes, cost.backward_passes))
    return result.name, *areas, time_text(cost), number_text(cost.ratio, ".1f"), *counts
