"""An image classifier with its image processor: loaded by name, with its classes by name."""

from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.loading import choose_device, load_classifier

__all__ = ["Classifier", "choose_device", "find_class", "load_classifier"]
