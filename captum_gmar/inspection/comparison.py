"""What comes of comparing methods on one image: numbers, and the tables and pictures of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization.style import milliseconds_text, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_gmar.visualization.heat import Pixels

HEADER = (
    *("method", "insertion ↑", "deletion ↓", "difference ↑"),
    *("time, ms", "× forward pass", "passes forward", "backward"),
)


class Cost(NamedTuple):
    """What one map takes."""

    seconds: float  # the median of its runs
    forward_seconds: float  # the median of forward passes of the one image without gradient, run in between
    forward_passes: int | None  # images through the model; None where the method cannot be watched
    backward_passes: int | None  # of these, how many a gradient came back for

    @property
    def ratio(self) -> float:
        """How many forward passes it takes as long as."""
        return self.seconds / self.forward_seconds


class Convergence(NamedTuple):
    """How far integrated gradients are from summing to what they should."""

    delta: float  # the sum of the attributions less the difference
    difference: float  # of the target's output for the image and for the baseline, zero


class Compared(NamedTuple):
    """What was found out about one method."""

    name: str
    relevance: Tensor  # (rows, columns)
    insertion: PerturbationCurve
    deletion: PerturbationCurve
    cost: Cost | None  # None for controls
    convergence: Convergence | None  # of integrated gradients

    @property
    def areas(self) -> tuple[float, float, float]:
        """Under the curves of insertion and deletion, and the first less the second."""
        inserted, deleted = float(self.insertion.auc), float(self.deletion.auc)
        return inserted, deleted, inserted - deleted


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare` returns. A notebook shows it as its table; so does ``print``.

    Attributes:
        methods: What was found out about each method, in the order asked for.
        controls: The same of the maps that know nothing of the model: random map, uniform map and centre blob.
        target: The class that was explained and followed; None for a model with one output.
        score: What is followed, for the whole image: the target's probability or, without softmax, output.
        is_probability: Which of the two.
        removal: How patches were removed, for insertion and deletion.
        steps: Of the curves.
        ig_steps: Of integrated gradients.
        device: Where all was run.
    """

    methods: tuple[Compared, ...]
    controls: tuple[Compared, ...]
    target: int | None
    score: float
    is_probability: bool
    removal: str
    steps: int
    ig_steps: int
    device: str

    @property
    def followed(self) -> str:
        """What the curves follow, as axes and captions call it."""
        what = "probability" if self.is_probability else "output"
        return f"{what} of class {self.target}" if self.target is not None else what

    def records(self) -> list[dict[str, Any]]:
        """A row of plain values for every method and control: ``pandas.DataFrame(comparison.records())``."""
        return [self._record(own) for own in (*self.methods, *self.controls)]

    def to_markdown(self) -> str:
        """The table, and below it what its numbers mean and the convergence deltas."""
        rows = [HEADER, *(_cells(own) for own in (*self.methods, *self.controls))]
        return "\n\n".join([_table(rows), *self._notes()])

    def visualize(self, image: "Pixels", **options: Any) -> "tuple[Figure, list[list[Axes]]]":
        """
        Draws the photo, and of every method its map over it, its curves and its costs.

        Args:
            image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, not normalised, as
                :func:`captum_gmar.visualize_attribution` takes it.
            options: Those of :func:`captum_gmar.inspection.picture.visualize_side_by_side`.

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of list of matplotlib.axes.Axes*): two of the photo and of every method, the upper first.
        """
        from captum_gmar.inspection.picture import visualize_side_by_side

        return visualize_side_by_side(self, image, **options)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _record(self, own: Compared) -> dict[str, Any]:
        areas = dict(zip(("insertion", "deletion", "difference"), own.areas, strict=True))
        costs = {**own.cost._asdict(), "ratio": own.cost.ratio} if own.cost else dict.fromkeys((*Cost._fields, "ratio"))
        convergence = own.convergence.delta if own.convergence else None
        asked = {"target": self.target, "removal": self.removal, "steps": self.steps}
        return {
            "method": own.name,
            "is_control": own.cost is None,
            **areas,
            **costs,
            "convergence_delta": convergence,
            **asked,
        }

    def _notes(self) -> list[str]:
        *first, last = (own.name for own in self.controls)
        seconds = median(own.cost.forward_seconds for own in self.methods if own.cost)
        score = number_text(self.score, ".3f")
        notes = [
            f"Insertion and deletion follow the {self.followed}, {score} for the whole image, over {self.steps} steps; "
            f"removal: {self.removal}. ↑ higher is better, ↓ lower. {', '.join(first)} and {last} know nothing of the "
            f"model. Times are medians on {self.device}, where a forward pass takes {milliseconds_text(seconds)} ms; "
            "passes count images."
        ]
        return notes + [self._convergence(own) for own in self.methods if own.convergence]

    def _convergence(self, own: Compared) -> str:
        assert own.convergence is not None
        return (
            f"{own.name}: convergence delta {number_text(own.convergence.delta)} with {self.ig_steps} steps, where the "
            f"outputs for the image and for the baseline differ by {number_text(own.convergence.difference)}."
        )


def _cells(own: Compared) -> tuple[str, ...]:
    areas = (number_text(area, ".3f") for area in own.areas)
    if own.cost is None:
        return own.name, *areas, "", "", "", ""
    passes = own.cost.forward_passes, own.cost.backward_passes
    counts = ("not known" if count is None else str(count) for count in passes)
    return own.name, *areas, milliseconds_text(own.cost.seconds), f"{own.cost.ratio:.1f}", *counts


def _table(rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, with columns of one width, that also reads well as it is."""
    (name, *titles), *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    columns = list(zip([name, *titles], *others, strict=True))
    widths = [max(map(len, column)) for column in columns]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[name, *titles], rule, *others]
    return "\n".join(f"| {' | '.join(map(_padded, line, widths, [False] + [True] * len(titles)))} |" for line in lines)


def _padded(cell: str, width: int, is_number: bool) -> str:
    return cell.rjust(width) if is_number else cell.ljust(width)
