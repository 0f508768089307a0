"""A vision model with its image processor: loaded by name, with its classes by name."""

from typing import TYPE_CHECKING, Any

from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.detection import find_object, find_query
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.segmentation import find_region

if TYPE_CHECKING:
    from captum_gmar.classifier.loading import choose_device, load_classifier

__all__ = ["Classifier", "choose_device", "find_class", "find_object", "find_query", "find_region", "load_classifier"]


def __getattr__(name: str) -> Any:
    """Load what loads models when it is used: it imports transformers, which other users need not have."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from captum_gmar.classifier import loading

    return getattr(loading, name)
