"""What a command over a data set is about: a model and examples, and all that its numbers depend on of them."""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import captum
import torch
import transformers

import captum_gmar
from captum_gmar.classifier import Classifier, find_class, load_classifier
from captum_gmar.evaluation.data import Example
from captum_gmar.evaluation.tables import fingerprint


class Subject(NamedTuple):
    """What is measured on what."""

    classifier: Classifier
    model_name: str
    examples: Sequence[Example]
    data_name: str

    def labels_as_targets(self) -> Callable[[Example], int]:
        """What gives the class of an example's label.

        Raises:
            ValueError: if an example has none, or it is no class of the model.
        """
        known = {label: self._class_of(label) for label in {example.label for example in self.examples}}
        return lambda example: known[example.label]

    def fingerprints(self) -> dict[str, str]:
        """Of model and data, for the settings of a results folder."""
        model = self.classifier.model
        return {
            "model": self.model_name,
            "weights": fingerprint(own.detach().cpu().numpy().tobytes() for own in model.state_dict().values()),
            "data": fingerprint(repr(own.known()).encode() for own in self.examples),
        }

    def _class_of(self, label: str | None) -> int:
        if label is None:
            raise ValueError("target 'label' must go with data whose images all have labels")
        return find_class(label, self.classifier.labels, "the data's label")


def classifier_of(name: str, arguments: argparse.Namespace, device: torch.device) -> Classifier:
    """The model of this name on the device."""
    return load_classifier(name, size=arguments.size, device=device)


def drawn(examples: int, limit: int | None, seed: int, part: tuple[int, int] = (1, 1)) -> list[int]:
    """Numbers of the examples in a random order, so that any beginning of them is a sample of all.

    Args:
        part: (2, 3) for every third example from the second on.
    """
    order: list[int] = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist()
    own, parts = part
    return [number for number in order if number % parts == own - 1][:limit]


def versions() -> dict[str, str]:
    return {
        "captum_gmar": captum_gmar.__version__,
        "torch": torch.__version__,
        "captum": captum.__version__,
        "transformers": transformers.__version__,
    }
