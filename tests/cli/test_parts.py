"""The parts of the command line by themselves."""

from captum_gmar.cli import evaluate
from captum_gmar.evaluation import measures


def test_every_metric_that_can_be_asked_for_is_measured() -> None:
    """The parser names them without importing torch."""
    for kind in ("CURVES", "MASKED", "LOCALISATION", "ANEW"):
        assert (kind, *getattr(evaluate, kind)) == (kind, *getattr(measures, kind))
