"""Tables of metrics, ways of removal and scores of heads, a row each, which load nothing before their call.

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

DIFFERENCE = "insertion-deletion"  # the area under the one minus that under the other


class MetricEntry(NamedTuple):
    """A metric."""

    name: str
    home: str  # module of this package, and what is called in it, by its kind: see `evaluation.measurement`
    kind: MetricKind
    better: Literal["higher", "lower"] | None

    def load(self) -> Any:
        """Return the function or object that measures."""
        return load(self.home)


class RemovalEntry(NamedTuple):
    """A way to remove patches."""

    name: str
    home: str  # module of this package, and class in it
    takes: Literal["model", "seed"] | None  # argument of the class


class HeadScoreEntry(NamedTuple):
    """A score of the heads."""

    name: str
    home: str | None  # module of this package, and function in it; None for ``head_importance`` of the method
    unit: str | None  # of its values; None where it is that of the loss


_METRICS = (
    MetricEntry("insertion", "evaluation.measurement.measures:INSERTION", "curve", "higher"),
    MetricEntry("deletion", "evaluation.measurement.measures:DELETION", "curve", "lower"),
    MetricEntry("average-drop", "metrics.average_drop:MaskedProbability.drop", "masked", "lower"),
    MetricEntry("average-increase", "metrics.average_drop:MaskedProbability.increase", "masked", "higher"),
    MetricEntry("average-gain", "metrics.average_drop:MaskedProbability.gain", "masked", "higher"),
    MetricEntry("pointing-game", "metrics.localisation:pointing_game", "localisation", "higher"),
    MetricEntry("relevance-mass", "metrics.localisation:relevance_mass_accuracy", "localisation", "higher"),
    MetricEntry("relevance-rank", "metrics.localisation:relevance_rank_accuracy", "localisation", "higher"),
    MetricEntry("srg", "evaluation.measurement.measures:SRG", "curve", "higher"),
    MetricEntry("srg-probability", "evaluation.measurement.measures:SRG_PROBABILITY", "curve", "higher"),
    MetricEntry("mif", "evaluation.measurement.measures:MIF", "curve", "lower"),
    MetricEntry("lif", "evaluation.measurement.measures:LIF", "curve", "higher"),
    MetricEntry("mif-accuracy", "evaluation.measurement.measures:MIF_ACCURACY", "curve", "higher"),
    MetricEntry("lif-accuracy", "evaluation.measurement.measures:LIF_ACCURACY", "curve", "lower"),
    MetricEntry("aopc", "evaluation.measurement.measures:AOPC", "curve", "higher"),
    MetricEntry("class-gain", "evaluation.measurement.measures:CLASS_GAIN", "curve", "higher"),
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

DEFAULT_REMOVALS = ("blur",)
_DEFAULT_METRICS = ("insertion", "deletion", "average-drop", "average-increase", "average-gain")


def default_metrics(has_objects: bool) -> tuple[str, ...]:
    """Return the default metrics; those of localisation where objects are known."""
    return _DEFAULT_METRICS + (metrics_of("localisation") if has_objects else ())


def metrics_of(kind: MetricKind, names: Sequence[str] = tuple(METRICS)) -> tuple[str, ...]:
    """Return those of these metrics that are of this kind."""
    return tuple(name for name in names if METRICS[name].kind == kind)


def arrow(metric: str) -> str:
    """Return the better direction, for tables; empty where neither is better."""
    return {"higher": "↑", "lower": "↓", None: ""}["higher" if metric == DIFFERENCE else METRICS[metric].better]


def make_removal(name: str, model: "nn.Module", seed: int = 0) -> "Removal":
    """Make the removal of this name for images of a model; the seed is that of noise."""
    entry = REMOVALS[check_name(name, REMOVALS, "removals")]
    given: dict[str | None, dict[str, Any]] = {None: {}, "seed": {"seed": seed}, "model": {"model": model}}
    made: Removal = load(entry.home)(**given[entry.takes])
    return made


def check_name(name: object, known: Mapping[str, Any], option: str) -> str:
    """Return the name if it is known; the error names near ones."""
    if isinstance(name, str) and name in known:
        return name
    near = get_close_matches(str(name).lower(), known)
    raise ValueError(
        f"{option} must be of {', '.join(known)}, but got {name!r}." + (f" Try {', '.join(near)}." if near else "")
    )


def load(home: str) -> Any:
    """Load "module:name" of this package."""
    module, names = home.split(":")
    value: Any = import_module(f"captum_gmar.{module}")
    for name in names.split("."):
        value = getattr(value, name)
    return value
