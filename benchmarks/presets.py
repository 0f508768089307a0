"""What the command measures."""

from typing import NamedTuple

from benchmarks.cases import Case
from benchmarks.rows import AGAIN, BOTH, DENSE, FORWARD, NAMES, OF_SEVERAL, ON_DISK
from benchmarks.timing import Limits
from captum_gmar.attr.catalogue import OURS

SHORT = (BOTH + AGAIN, "gmar-l1", FORWARD + AGAIN, "rollout")
SOME = (*SHORT, "gmar-forward", "gradient-rollout")
MAIN = (*SOME, "gmar-l2", "gmar++", "legrad", DENSE, "saliency", OF_SEVERAL[0])
GROWING = ("gmar-l1", "gmar-forward", "gradient-rollout", DENSE, "rollout")


class Preset(NamedTuple):
    """What is measured, and for how long at most."""

    tables: dict[Case, tuple[str, ...]]  # and the rows of each
    growth: dict[str, tuple[Case, ...]]  # from what grows
    limits: Limits
    exact: tuple[Case, ...]  # compared with the formulas in float64
    start_up: int = 0  # how often commands are started
    needs_gpu: bool = False

    @property
    def rows(self) -> dict[Case, tuple[str, ...]]:
        """Return the rows of every case, those of the growth among them."""
        growing = {case: GROWING for cases in self.growth.values() for case in cases}
        cases = {**self.tables, **growing}
        return {case: tuple(dict.fromkeys((*self.tables.get(case, ()), *growing.get(case, ())))) for case in cases}


def _growth(
    model: str,
    layers: int,
    pixels: tuple[int, ...] = (224, 384, 512, 768, 1024),  # 197 to 4097 tokens
    depths: tuple[int, ...] = (2, 4, 8, 12, 24),
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
) -> dict[str, tuple[Case, ...]]:
    return {
        "tokens": tuple(Case(model, side, layers=layers) for side in pixels),
        "layers": tuple(Case(model, 224, layers=depth) for depth in depths),
        "images of a batch": tuple(Case(model, 224, batch, layers=layers) for batch in batches),
    }


PRESETS = {
    "small": Preset(  # minutes on two cores
        tables={Case("ViT-Ti", 224): NAMES, Case("ViT-Ti", 224, 8): MAIN, Case("ViT-Ti", 224, 8, "bfloat16"): SOME},
        growth=_growth("ViT-Ti", 2, (224, 384, 768), (2, 4, 8), (1, 4, 16)),
        limits=Limits(rounds=3, enough=2, longest=60),  # bfloat16 takes a processor without it long
        exact=(Case("ViT-Ti", 224, 2, layers=4),),
        start_up=1,
    ),
    "methods": Preset(  # a minute or two: every method of ours, on one small model
        tables={Case("ViT-Ti", 224): (BOTH + AGAIN, FORWARD + AGAIN, *OURS)},
        growth={},
        limits=Limits(rounds=15, enough=8, longest=20, fewest=5),
        exact=(),
    ),
    "places": Preset(  # minutes: models without a single patch grid, and a video
        tables={
            Case("Swin-T", 224): (BOTH + AGAIN, "attention-evidence"),
            Case("Swin-T", 224, 8): (BOTH + AGAIN, "attention-evidence"),
            Case("VideoMAE-S", 112): (BOTH + AGAIN, "attention-evidence"),
            Case("ViT-Ti", 224): (BOTH + AGAIN, "attention-evidence"),
        },
        growth={},
        limits=Limits(rounds=21, enough=20, longest=60, fewest=5),
        exact=(),
    ),
    "cpu": Preset(  # half an hour
        tables={
            Case("ViT-B", 224, 8): (*SOME, "gmar++", "legrad", DENSE),
            Case("ViT-B", 768): (*SOME, ON_DISK),
            Case("ViT-B", 1024): SHORT,
            Case("ViT-B", 224): MAIN,
            Case("ViT-Ti", 224): NAMES,
            Case("ViT-B", 224, 8, "bfloat16"): SOME,
            Case("ViT-L", 224): SOME,
        },
        growth=_growth("ViT-Ti", 4),
        limits=Limits(rounds=7, enough=8, longest=60, fewest=2),
        exact=(Case("ViT-B", 224, 2),),
        start_up=5,
    ),
    "gpu": Preset(
        tables={
            Case(model, pixels, batch, precision): names
            for pixels, batch, names in ((224, 64, NAMES), (1024, 4, MAIN))
            for model in ("ViT-B", "ViT-L")
            for precision in ("float32", "bfloat16")
        },
        growth=_growth("ViT-B", 12),
        limits=Limits(rounds=15, enough=6, longest=20, fewest=3),
        exact=(Case("ViT-B", 224, 2), Case("ViT-L", 224, layers=4), Case("ViT-Ti", 768)),
        start_up=3,
        needs_gpu=True,
    ),
}
