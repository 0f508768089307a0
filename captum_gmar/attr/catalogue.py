"""Every method by name, ours and Captum's, with what is to be known of it before it is loaded.

Neither torch nor any method is loaded until one is asked for, so that help and usage errors come at once. A new method
is one more row.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from captum_gmar.engine._captum import Attribution

MethodFactory: TypeAlias = "Callable[..., Attribution]"

ALL_TOKENS, ALL_EVIDENCE = "all tokens", "all evidence"


class MethodEntry(NamedTuple):
    """One method.

    Attributes:
        name: as it is called on the command line and in tables.
        home: the module in this package, and the class in it, "attr.gmar:GMARAttribution".
        options: that the class is made with.
        takes_tokens: whether it takes ``tokens=``, where relevance begins.
        reads_class: whether the class that is explained enters the map. What is the same for every class says nothing
            of one rather than another.
        share: of what a value is a share: "all tokens" or "all evidence"; None where values are in units of the
            logit, or without unit.
        is_ours: whether it is a method of this package; else it is Captum's.
    """

    name: str
    home: str
    options: Mapping[str, Any] = MappingProxyType({})
    takes_tokens: bool = False
    reads_class: bool = True
    share: str | None = None
    is_ours: bool = True

    @property
    def takes_contrast(self) -> bool:
        """Whether it takes ``contrast=``, a class that the target is held against, and that means something to it."""
        return self.is_ours and self.reads_class

    def load(self) -> MethodFactory:
        """The class, or what makes it with the options: called on a model, it gives the method."""
        module, _, name = self.home.partition(":")
        method: MethodFactory = getattr(import_module(f"captum_gmar.{module}"), name)
        return partial(method, **self.options) if self.options else method


def _from_tokens(name: str, home: str, share: str | None = None, **options: Any) -> MethodEntry:
    return MethodEntry(name=name, home=home, share=share, options=options, takes_tokens=True)


def _of_any_class(name: str, home: str, share: str | None = None, **options: Any) -> MethodEntry:
    """Of attention alone, without gradient."""
    return MethodEntry(name=name, home=home, share=share, options=options, takes_tokens=True, reads_class=False)


def _captums(name: str, home: str) -> MethodEntry:
    return MethodEntry(name=name, home=f"attr.captum_methods:{home}", is_ours=False)


_ROWS = (
    _from_tokens("gmar-l1", "attr.gmar:GMARAttribution", ALL_TOKENS),
    _from_tokens("gmar-l2", "attr.gmar:GMARAttribution", ALL_TOKENS, norm="l2"),
    _from_tokens("gmar-forward", "attr.gmar:GMARAttribution", ALL_TOKENS, recursion="forward"),
    _from_tokens("gmar-additive", "attr.gmar:GMARAttribution", recursion="additive"),
    _of_any_class("rollout", "attr.rollout:AttentionRollout", ALL_TOKENS),
    _of_any_class("rollout-forward", "attr.rollout:AttentionRollout", ALL_TOKENS, recursion="forward"),
    _of_any_class("rollout-additive", "attr.rollout:AttentionRollout", recursion="additive"),
    _of_any_class("raw-attention", "attr.rollout:RawAttention", ALL_TOKENS),
    _from_tokens("gradient-rollout", "attr.gradient_rollout:GradientRollout"),
    _from_tokens("gradient-rollout-gmar", "attr.gradient_rollout:GradientRollout", head_fusion="gmar"),
    _from_tokens("attention-grad-cam", "attr.gradient_rollout:AttentionGradCAM"),
    _from_tokens("gmar++", "attr.gradient_rollout:GMARPlusPlus", ALL_TOKENS),
    MethodEntry(name="grad-sam", home="attr.layer_means:GradSAM"),
    MethodEntry(name="legrad", home="attr.layer_means:LeGrad"),
    MethodEntry(name="published-gmar", home="attr.published:PublishedGMAR", reads_class=False),  # but for a residue
    MethodEntry(name="attention-evidence", home="attr.evidence:AttentionEvidence", share=ALL_EVIDENCE),
    _captums("saliency", "Saliency"),
    _captums("input-x-gradient", "InputXGradient"),
    _captums("integrated-gradients", "IntegratedGradients"),
    _captums("gradient-shap", "GradientShap"),
    _captums("occlusion", "PatchOcclusion"),
    _captums("feature-ablation", "PatchAblation"),
    _captums("layer-grad-cam", "TokenGradCam"),
)
METHODS: Mapping[str, MethodEntry] = {entry.name: entry for entry in _ROWS}
OURS = tuple(name for name, entry in METHODS.items() if entry.is_ours)
CAPTUMS = tuple(name for name, entry in METHODS.items() if not entry.is_ours)

# What is taken where nobody says which: by `compare`, and by `evaluate`, where each method takes hours.
COMPARED = (
    *("attention-evidence", "gmar-l1", "gmar-l2", "rollout", "gradient-rollout", "gmar++"),
    *("integrated-gradients", "input-x-gradient"),
)
EVALUATED = tuple(name for name in COMPARED if name != "integrated-gradients")


def find_method(name: object) -> str:
    """The name of the method that is meant, whatever its case.

    Raises:
        ValueError: if there is none; it names those that are near.
    """
    wanted = str(name).strip().lower()
    if wanted in METHODS:
        return wanted
    near = dict.fromkeys([*(known for known in METHODS if wanted in known), *get_close_matches(wanted, METHODS)])
    raise ValueError(
        f"method must be one of captum_gmar.methods(), which `captum-gmar explain --help` lists. Got {name!r} instead."
        + (f" Near are {', '.join(near)}." if wanted and near else "")
    )


def methods() -> dict[str, MethodFactory]:
    """
    Every method by its name, as it is called on the command line and in tables.

    Returns:
        dict: From name to a callable ``(model, forward_func=None)`` that returns a Captum ``Attribution``; call its
        ``attribute(inputs, target=..., additional_forward_args=...)``. The attributions have the shape of the inputs.

    Example::

        >>> from captum_gmar import methods
        >>> from captum_gmar.demo import load_model, load_scene
        >>> model, scene = load_model(), load_scene(3)
        >>> for name in ("gmar-l1", "gradient-rollout", "saliency"):
        ...     attributions = methods()[name](model).attribute(scene.pixel_values, target=scene.labels[0])
        ...     assert attributions.shape == scene.pixel_values.shape
    """
    return {name: entry.load() for name, entry in METHODS.items()}
