"""The settings of an evaluation of heads. Nothing of this loads torch."""

from dataclasses import dataclass

from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, RANDOM_ORDERS


@dataclass(frozen=True)
class HeadSettings:
    """What is to be known of the heads; see :func:`captum_gmar.evaluate_heads`.

    Attributes:
        scores: names.
        target: the class that is explained: "predicted", "label", an index or a label.
        ablate: whether heads are silenced in the order of each score.
        random_orders: how many are silenced as well, to compare with.
        limit: how many of the examples are taken; None for all.
        seed: of the examples and the orders that are drawn.
        batch_size: how many images run at once; None: what suits the device.

    Raises:
        ValueError: if there is no score, or a number is out of its range.
    """

    scores: tuple[str, ...] = DEFAULT_SCORES
    target: str | int = "predicted"
    ablate: bool = False
    random_orders: int = RANDOM_ORDERS
    limit: int | None = None
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("scores must hold at least one. Got none instead.")
        for name, least in (("random_orders", 1), ("seed", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            is_open = value is None and name in ("limit", "batch_size")
            if not is_open and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name} must be an integer, {('zero', 'one')[least]} or more. Got {value!r} instead.")
