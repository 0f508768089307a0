"""An image classifier with its image processor: from images to logits, and back to what the model saw."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar.engine.models import Logits, patch_grid

WHITE = 255


@dataclass(frozen=True)
class Classifier:
    """
    Args:
        model: a Hugging Face image classifier.
        processor: its image processor.
        size: run at size × size pixels in place of the image processor's own.
    """

    model: nn.Module
    processor: Any
    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is None:
            return
        try:
            grid = patch_grid(self.model, self.size, self.size)
        except ValueError as error:
            raise ValueError(f"size must suit the model. Got {self.size} instead: {error}") from error
        if self.size % grid.patch_height or self.size % grid.patch_width:
            raise ValueError(
                f"size must be a multiple of the model's patch size, {grid.patch_height}x{grid.patch_width} pixels. "
                f"Got {self.size} instead."
            )

    @cached_property
    def labels(self) -> dict[int, str]:
        """The name of every class."""
        config: Any = self.model.config
        names = config.id2label or {}
        return {index: str(names.get(index, f"class {index}")) for index in range(config.num_labels)}

    @property
    def is_multi_label(self) -> bool:
        return getattr(self.model.config, "problem_type", None) == "multi_label_classification"

    def pixel_values(self, image: Image.Image) -> Tensor:
        """(1, channels, height, width), as the model takes them."""
        pixels = self.processor(images=image, return_tensors="pt", **self._size_options())["pixel_values"]
        if self.size is not None and pixels.shape[-2:] != (self.size, self.size):
            height, width = pixels.shape[-2:]
            raise ValueError(
                f"size must be one that the model's image processor can make. Got {self.size} instead, of which it "
                f"makes {height}x{width} pixels."
            )
        return pixels  # type: ignore[no-any-return]

    def mask(self, mask: Image.Image) -> Tensor:
        """Where a black and white mask of an image lies in its pixel values: boolean (height, width)."""
        options = {"do_normalize": False, "do_rescale": False, "resample": Image.Resampling.NEAREST}
        made = self.processor(images=mask.convert("RGB"), return_tensors="pt", **options, **self._size_options())
        white: Tensor = made["pixel_values"][0, 0] > WHITE / 2
        return white

    def photo(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        """What the model saw, (height, width, channels) in [0, 1], of pixel values (channels, height, width)."""
        photo = pixels.cpu().float().movedim(0, -1)
        options = vars(self.processor)
        if options.get("image_mean") is None:  # timm's image processors do not say how they normalise
            low, high = photo.aminmax()
            return ((photo - low) / (high - low).clamp(min=1e-6)).numpy()
        if options.get("do_normalize", True):
            photo = photo * torch.tensor(self.processor.image_std) + torch.tensor(self.processor.image_mean)
        photo = photo / (255 * self.processor.rescale_factor if options.get("do_rescale", True) else 255)
        return photo.clamp(0, 1).numpy()

    def logits(self, pixels: Tensor) -> Tensor:
        """(N, classes)

        Raises:
            ValueError: from the model, if it cannot take images of this size.
        """
        options = {"interpolate_pos_encoding": True} if self._interpolates(*pixels.shape[-2:]) else {}
        return Logits(self.model)(pixels, **options)

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """Of every class: they sum to 1, or each stands alone in multi-label models; None where there is one logit."""
        if self.is_multi_label:
            return logits.sigmoid()
        return logits.softmax(-1) if logits.shape[-1] > 1 else None

    def _size_options(self) -> dict[str, Any]:
        if self.size is None:
            return {}
        square = {"height": self.size, "width": self.size}
        own = dict(getattr(self.processor, "size", None) or {})
        if not getattr(self.processor, "do_center_crop", None):
            return {"do_resize": True, "size": square}
        # The crop takes the same part of the photo as at the model's own size.
        margin = max(1, self._edge(own) / self._edge(dict(self.processor.crop_size)))
        resized = round(self.size * margin)
        size = {key: resized for key in ("height", "width", "shortest_edge") if own.get(key)}
        return {"do_resize": True, "size": size or square, "crop_size": square}

    @staticmethod
    def _edge(size: dict[str, int]) -> int:
        return size.get("shortest_edge") or size["height"]

    def _interpolates(self, height: int, width: int) -> bool:
        own: Any = self.model.config
        own = getattr(own, "vision_config", own)
        own_size = getattr(own, "image_size", (height, width))
        own_size = (own_size, own_size) if isinstance(own_size, int) else tuple(own_size)
        return own_size != (height, width) and _accepts(self.model, "interpolate_pos_encoding")


def _accepts(model: nn.Module, option: str) -> bool:
    """Whether the model takes the option, itself or to hand it on to one of its parts that does."""
    own = inspect.signature(model.forward).parameters
    if option in own:
        return True
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    return hands_on and any(option in inspect.signature(part.forward).parameters for part in model.modules())
