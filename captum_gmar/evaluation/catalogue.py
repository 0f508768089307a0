"""The metrics, the ways of removal and the scores of heads by name: a row each, which loads nothing before its call.

A new metric, or way of removal, is a function or class in :mod:`captum_gmar.metrics` and a row here.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from captum_gmar.metrics import Removal

MetricKind = Literal["curve", "masked", "localisation", "anew"]

DIFFERENCE = "insertion-deletion"  # the area under the one less that under the other; made of the two


class MetricEntry(NamedTuple):
    """A metric."""

    name: str  # in tables, and as it is asked for
    home: str  # module of this package and what is called: by its kind, see `evaluation.measurement.measures`
    kind: MetricKind
    better: Literal["higher", "lower"] | None  # None where neither is

    @property
    def arrow(self) -> str:
        """Which way is better, for tables."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]

    def load(self) -> Any:
        """What measures."""
        return load(self.home)


class RemovalEntry(NamedTuple):
    """A way to take patches out of an image."""

    name: str  # in tables, and as it is asked for
    home: str  # module of this package and class
    takes: Literal["model", "seed"] | None  # what the class is called with


class HeadScoreEntry(NamedTuple):
    """A score of the heads.

    Attributes:
        name: on the command line and in tables.
        home: the module in this package, and the function in it, "ablation.scores:attention_entropy"; None for
            ``head_importance`` of the method of this name.
        unit: of its values; None where it is that of the loss.
    """

    name: str
    home: str | None
    unit: str | None


_METRICS = (
    MetricEntry("insertion", "evaluation.measurement.curve_metrics:INSERTION", "curve", "higher"),
    MetricEntry("deletion", "evaluation.measurement.curve_metrics:DELETION", "curve", "lower"),
    MetricEntry("average-drop", "metrics.average_drop:MaskedProbability.drop", "masked", "lower"),
    MetricEntry("average-increase", "metrics.average_drop:MaskedProbability.increase", "masked", "higher"),
    MetricEntry("average-gain", "metrics.average_drop:MaskedProbability.gain", "masked", "higher"),
    MetricEntry("pointing-game", "metrics.localisation:pointing_game", "localisation", "higher"),
    MetricEntry("relevance-mass", "metrics.localisation:relevance_mass_accuracy", "localisation", "higher"),
    MetricEntry("relevance-rank", "metrics.localisation:relevance_rank_accuracy", "localisation", "higher"),
    MetricEntry("srg", "evaluation.measurement.curve_metrics:SRG", "curve", "higher"),
    MetricEntry("srg-probability", "evaluation.measurement.curve_metrics:SRG_PROBABILITY", "curve", "higher"),
    MetricEntry("mif", "evaluation.measurement.curve_metrics:MIF", "curve", "lower"),
    MetricEntry("lif", "evaluation.measurement.curve_metrics:LIF", "curve", "higher"),
    MetricEntry("mif-accuracy", "evaluation.measurement.curve_metrics:MIF_ACCURACY", "curve", "higher"),
    MetricEntry("lif-accuracy", "evaluation.measurement.curve_metrics:LIF_ACCURACY", "curve", "lower"),
    MetricEntry("aopc", "evaluation.measurement.curve_metrics:AOPC", "curve", "higher"),
    MetricEntry("class-gain", "evaluation.measurement.curve_metrics:CLASS_GAIN", "curve", "higher"),
    MetricEntry("gridpg", "evaluation.measurement.rerun_metrics:grid_pointing", "anew", "higher"),
    MetricEntry("completeness-error", "evaluation.measurement.rerun_metrics:completeness_errors", "anew", None),
    MetricEntry("class-sensitivity", "evaluation.measurement.rerun_metrics:class_differences", "anew", None),
    MetricEntry("sensitivity-max", "evaluation.measurement.rerun_metrics:sensitivities", "anew", "lower"),
    MetricEntry("infidelity", "evaluation.measurement.rerun_metrics:infidelities", "anew", "lower"),
)
_REMOVALS = (
    RemovalEntry("zero", "metrics.removal:Zero", None),
    RemovalEntry("mean", "metrics.removal:Mean", None),
    RemovalEntry("blur", "metrics.removal:Blur", None),
    RemovalEntry("noise", "metrics.removal:Noise", "seed"),
    RemovalEntry("noisy-linear", "metrics.road:NoisyLinear", "seed"),
    RemovalEntry("tokens", "ablation.tokens:TokenRemoval", "model"),
)

METRICS: Mapping[str, MetricEntry] = {entry.name: entry for entry in _METRICS}
REMOVALS: Mapping[str, RemovalEntry] = {entry.name: entry for entry in _REMOVALS}

_SCORES = (
    HeadScoreEntry("gmar-l1", None, "share of its layer"),
    HeadScoreEntry("gmar-l2", None, "share of its layer"),
    HeadScoreEntry("mask-gradient", "ablation.scores:gradient_of_mask", None),
    HeadScoreEntry("entropy", "ablation.scores:attention_entropy", "nats"),
)

SCORES: Mapping[str, HeadScoreEntry] = {entry.name: entry for entry in _SCORES}
DEFAULT_SCORES = ("gmar-l1", "mask-gradient")
RANDOM_ORDERS = 10  # that the orders of the scores are held against

DEFAULT_REMOVALS = ("blur",)
_DEFAULT_METRICS = ("insertion", "deletion", "average-drop", "average-increase", "average-gain")


def default_metrics(has_objects: bool) -> tuple[str, ...]:
    """Those that are measured unless others are asked for; of localisation where it is known where objects are."""
    return _DEFAULT_METRICS + (metrics_of("localisation") if has_objects else ())


def metrics_of(kind: MetricKind, names: Sequence[str] = tuple(METRICS)) -> tuple[str, ...]:
    """Those of these metrics that are of this kind."""
    return tuple(name for name in names if METRICS[name].kind == kind)


def arrow(metric: str) -> str:
    """Which way is better, for tables; empty where neither is."""
    return "↑" if metric == DIFFERENCE else METRICS[metric].arrow


def make_removal(name: str, model: "nn.Module", seed: int = 0) -> "Removal":
    """
    The way of removal of this name.

    Args:
        name: of ``REMOVALS``.
        model: what sees the images.
        seed: of what is drawn.

    Raises:
        ValueError: if there is none of this name.
    """
    entry = REMOVALS[check_name(name, REMOVALS, "removals")]
    given: dict[str | None, dict[str, Any]] = {None: {}, "seed": {"seed": seed}, "model": {"model": model}}
    made: Removal = load(entry.home)(**given[entry.takes])
    return made


def check_name(name: object, known: Mapping[str, Any], option: str) -> str:
    """The name, if it is known.

    Raises:
        ValueError: if it is not; the error tells near ones.
    """
    if isinstance(name, str) and name in known:
        return name
    near = get_close_matches(str(name).lower(), known)
    raise ValueError(
        f"{option} must be of {', '.join(known)}. Got {name!r} instead."
        + (f" Near are {', '.join(near)}." if near else "")
    )


def load(home: str) -> Any:
    """What stands at "module:name" of this package."""
    module, names = home.split(":")
    value: Any = import_module(f"captum_gmar.{module}")
    for name in names.split("."):
        value = getattr(value, name)
    return value
