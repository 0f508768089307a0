"""The methods by name and what they take, told here so that help and usage errors need not load them."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches

from captum_gmar.cli.terminal import CommandError

SHARES = {  # of what the values are shares
    **dict.fromkeys(("gmar-l1", "gmar-l2", "gmar-forward", "rollout", "rollout-forward"), "all tokens"),
    **dict.fromkeys(("raw-attention", "gmar++"), "all tokens"),
    "attention-evidence": "all evidence",
}

FROM_TOKENS = (
    *("gmar-l1", "gmar-l2", "gmar-forward", "gmar-additive"),
    *("rollout", "rollout-forward", "rollout-additive", "raw-attention"),
    *("gradient-rollout", "gradient-rollout-gmar", "attention-grad-cam", "gmar++"),
)
FROM_ALL_LAYERS = ("grad-sam", "legrad", "published-gmar", "attention-evidence")
OURS = FROM_TOKENS + FROM_ALL_LAYERS
CAPTUMS = (
    *("saliency", "input-x-gradient", "integrated-gradients", "gradient-shap"),
    *("occlusion", "feature-ablation", "layer-grad-cam"),
)
NAMES = OURS + CAPTUMS


def method_name(text: str) -> str:
    """The argument of ``--method``."""
    name = text.strip().lower()
    if name in NAMES:
        return name
    near = dict.fromkeys([*(other for other in NAMES if name in other), *get_close_matches(name, NAMES)])
    raise argparse.ArgumentTypeError(
        f"must be one of the methods that `captum-gmar explain --help` lists. Got {text!r} instead."
        + (f" Near are {', '.join(near)}." if name and near else "")
    )


def check_taken(option: str, names: Sequence[str], taking: Sequence[str]) -> None:
    """Checks that all of the methods take the option.

    Raises:
        CommandError: if some do not.
    """
    others = [name for name in names if name not in taking]
    if others:
        raise CommandError(
            f"{option} must go with methods that take it: {', '.join(taking)}. Got {', '.join(others)} instead."
        )
