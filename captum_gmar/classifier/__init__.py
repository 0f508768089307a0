"""An image classifier with its image processor: loaded by name, with its classes by name."""

from typing import TYPE_CHECKING, Any

from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.image_classifier import Classifier

if TYPE_CHECKING:
    from captum_gmar.classifier.loading import choose_device, load_classifier

__all__ = ["Classifier", "choose_device", "find_class", "load_classifier"]


def __getattr__(name: str) -> Any:
    """What loads models comes with transformers, which those who hand over their own need not have loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from captum_gmar.classifier import loading

    return getattr(loading, name)
