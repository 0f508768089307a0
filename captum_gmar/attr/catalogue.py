"""Every method by name, ours and Captum's, with its properties, known before it is loaded.

Neither torch nor any method is loaded before its first use, so that help and usage errors come at once. A new method
is one more row.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from captum_gmar.engine._captum import Attribution

MethodFactory: TypeAlias = "Callable[..., Attribution]"

ALL_TOKENS, ALL_EVIDENCE = "all tokens", "all evidence"
OF_LOGIT, OF_SLOPE, UNITLESS = "of the logit", "slope of the logit", "no unit"

# Limitations of maps, in a line below them.
ANY_CLASS = "Where attention went, for whichever class."
NEARLY_ANY_CLASS = "Hardly depends on the class."
ONLY_FOR = "Shows nothing that speaks against the class."
ONE_LAYER = "Uses one layer, whose tokens mix all patches."
MIXED = "A later token holds information of several patches."
FROM_ZEROS = "Compared with an image of the mean colour."
ONE_BY_ONE = "Measures each patch alone, not several together."


class MethodEntry(NamedTuple):
    """One method."""

    name: str  # on the command line and in tables
    home: str  # its module in this package and its class, "attr.gmar:GMARAttribution"
    options: Mapping[str, Any] = MappingProxyType({})  # of the class
    takes_tokens: bool = False  # ``tokens=``, where relevance begins
    reads_class: bool = True  # the explained class enters the map
    share: str | None = None  # ALL_TOKENS or ALL_EVIDENCE, of which values are shares; else they have a unit
    is_ours: bool = True  # else it is Captum's
    unit: str = OF_LOGIT
    caveat: str = ""  # a limitation of its maps, in a line below them
    takes_passes: bool = False  # ``passes=``, a budget for each map

    @property
    def label(self) -> str:
        """The quantity of a map and its unit, for colour bars. Shares are drawn in percent."""
        return f"relevance per patch, {f'% of {self.share}' if self.share else self.unit}"

    @property
    def takes_contrast(self) -> bool:
        """The method's use of ``contrast=``, a class that the target is compared with."""
        return self.is_ours and self.reads_class

    def load(self) -> MethodFactory:
        """Return the class, or a function that makes it with the options: called on a model, it gives the method."""
        module, _, name = self.home.partition(":")
        method: MethodFactory = getattr(import_module(f"captum_gmar.{module}"), name)
        return partial(method, **self.options) if self.options else method

    def with_passes(self, passes: int) -> "MethodEntry":
        """Return the entry of the same method with a budget of so many passes."""
        if not self.takes_passes:
            taking = ", ".join(name for name, entry in METHODS.items() if entry.takes_passes)
            raise ValueError(f"method must be {taking} to take passes, but got '{self.name}@{passes}'.")
        if passes < 1:
            raise ValueError(f"passes must be a whole number above zero, but got {passes}. Pass 1 for one pass.")
        if passes == 1:
            return self
        return self._replace(name=f"{self.name}@{passes}", options={**self.options, "passes": passes})


class _Methods(dict[str, MethodEntry]):
    """Methods by name. ``NAME@K`` stands for NAME with a budget of K passes, and is not among the keys."""

    def __contains__(self, name: object) -> bool:
        try:
            return bool(self[str(name)])
        except (KeyError, ValueError):
            return False

    def __missing__(self, name: str) -> MethodEntry:
        base, at, passes = name.partition("@")
        if not at or base not in self or not (passes.isascii() and passes.isdigit()):
            raise KeyError(name)
        return self[base].with_passes(int(passes))


def _gmar_row(name: str, share: str | None = ALL_TOKENS, **options: Any) -> MethodEntry:
    entry = MethodEntry(name, "attr.gmar:GMARAttribution", options, takes_tokens=True, share=share, unit=UNITLESS)
    return entry._replace(caveat=NEARLY_ANY_CLASS)


def _classless_row(name: str, home: str, share: str | None = ALL_TOKENS, **options: Any) -> MethodEntry:
    """Return a row for attention alone, without gradient."""
    entry = MethodEntry(name, home, options, takes_tokens=True, reads_class=False, share=share, unit=UNITLESS)
    return entry._replace(caveat=ANY_CLASS)


def _positive_row(name: str, home: str, **fields: Any) -> MethodEntry:
    return MethodEntry(name, home, **{"caveat": ONLY_FOR, **fields})


def _token_row(name: str, home: str) -> MethodEntry:
    """Return a row for the tokens between the layers, times their gradient."""
    return MethodEntry(name, f"attr.token_gradients:{home}", caveat=MIXED)


def _captum_row(name: str, home: str, caveat: str, unit: str = OF_LOGIT) -> MethodEntry:
    return MethodEntry(name, f"attr.captum_methods:{home}", is_ours=False, unit=unit, caveat=caveat)


_GRADIENT_ROLLOUT, _ROLLOUT = "attr.gradient_rollout:GradientRollout", "attr.rollout:AttentionRollout"
_ROWS = (  # the most faithful on photos first, as docs/results measures them; then Captum's
    MethodEntry(
        *("token-evidence", "attr.token_evidence:TokenEvidence"), share=ALL_EVIDENCE, caveat=MIXED, takes_passes=True
    ),
    _token_row("libra-fullgrad+", "LibraFullGradPlus"),
    _token_row("libra-attcat", "LibraAttCAT"),
    MethodEntry(
        *("attention-evidence", "attr.evidence:AttentionEvidence"),
        share=ALL_EVIDENCE,
        caveat="Shows which tokens were read, not which pixels shaped them.",
    ),
    _positive_row("gmar++", "attr.gradient_rollout:GMARPlusPlus", takes_tokens=True, share=ALL_TOKENS),
    _positive_row(
        *("gradient-rollout-gmar", _GRADIENT_ROLLOUT), options={"head_fusion": "gmar"}, takes_tokens=True, unit=UNITLESS
    ),
    _positive_row("gradient-rollout", _GRADIENT_ROLLOUT, takes_tokens=True, unit=UNITLESS),
    _positive_row(
        *("attention-grad-cam", "attr.gradient_rollout:AttentionGradCAM"), takes_tokens=True, caveat=ONE_LAYER
    ),
    _positive_row("grad-eclip", "attr.last_attention:GradECLIP", caveat=ONE_LAYER),
    _positive_row("legrad", "attr.layer_means:LeGrad"),
    _token_row("attcat", "AttCAT"),
    _positive_row("grad-sam", "attr.layer_means:GradSAM"),
    _token_row("fullgrad+", "FullGradPlus"),
    _gmar_row("gmar-forward", recursion="forward"),
    _classless_row("rollout-forward", _ROLLOUT, recursion="forward"),
    _gmar_row("gmar-additive", share=None, recursion="additive"),
    _classless_row("rollout-additive", _ROLLOUT, share=None, recursion="additive"),
    _classless_row("raw-attention", "attr.rollout:RawAttention"),
    _classless_row("rollout", _ROLLOUT),
    _gmar_row("gmar-l1"),
    _gmar_row("gmar-l2", norm="l2"),
    MethodEntry(  # a residue of the class is left in it
        *("published-gmar", "attr.published:PublishedGMAR"), reads_class=False, unit=UNITLESS, caveat=NEARLY_ANY_CLASS
    ),
    MethodEntry("cdam", "attr.last_attention:CDAM", caveat=ONE_LAYER),
    _captum_row("layer-grad-cam", "TokenGradCam", ONE_LAYER),
    _captum_row("integrated-gradients", "IntegratedGradients", FROM_ZEROS),
    _captum_row("occlusion", "PatchOcclusion", ONE_BY_ONE),
    _captum_row("feature-ablation", "PatchAblation", ONE_BY_ONE),
    _captum_row("gradient-shap", "GradientShap", FROM_ZEROS),
    _captum_row("input-x-gradient", "InputXGradient", "Of the slope at this image: holds for small changes."),
    _captum_row("saliency", "Saliency", "What a change would matter, not what speaks for the class.", OF_SLOPE),
)
METHODS: Mapping[str, MethodEntry] = _Methods({entry.name: entry for entry in _ROWS})
OURS = tuple(name for name, entry in METHODS.items() if entry.is_ours)
CAPTUMS = tuple(name for name, entry in METHODS.items() if not entry.is_ours)

RECOMMENDED, GMAR = "token-evidence", "gmar-l1"  # the method to take, and the paper's
# Defaults of `explain`; of `compare`; and of `evaluate`, where each method takes hours.
EXPLAINED = (RECOMMENDED, GMAR)
COMPARED = (
    *(RECOMMENDED, "attention-evidence", GMAR, "gmar-l2", "rollout", "gradient-rollout", "gmar++"),
    *("integrated-gradients", "input-x-gradient"),
)
EVALUATED = tuple(name for name in COMPARED if name != "integrated-gradients")
STEPS = 28  # of insertion and deletion, unless another number is given or there are fewer patches


def unique_names(names: object, option: str) -> tuple[str, ...]:
    """Return the names, each once."""
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{option} must be a sequence of names, but got {names!r}. Pass [name] for one.")
    return tuple(dict.fromkeys(names))


def find_method(name: object) -> str:
    """Return the name of a method, in any case of letters; the error suggests similar names.

    >>> find_method("Token-Evidence@5"), find_method("token-evidence@1")
    ('token-evidence@5', 'token-evidence')
    """
    wanted = str(name).strip().lower()
    try:
        return METHODS[wanted].name
    except KeyError:
        pass
    holding = sorted((known for known in METHODS if wanted in known), key=len)
    near = dict.fromkeys([*holding, *get_close_matches(wanted, METHODS)])
    raise ValueError(
        f"method must be one of captum_gmar.list_methods(), listed by `captum-gmar explain --help`, but got {name!r}."
        + (f" Try {', '.join(near)}." if wanted and near else "")
    )
