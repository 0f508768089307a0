"""A vision model with its image processor: from images to logits, and from pixel values back to photos."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar.classifier.photo_frame import Colours, PhotoFrame, PhotoView, find_frame
from captum_gmar.engine.models.patch_grid import Logits, check_model, config_of, patch_grid
from captum_gmar.files.images import to_rgb
from captum_gmar.metrics._inputs import check_count

PIXEL_NAMES = "pixel_values", "pixel_values_videos"  # as processors name them
PADDING_MASK = "pixel_mask"
LARGEST = 8192  # pixels on a side: close to where Pillow takes a file for a decompression bomb

# Operations a second of one thread of a CPU, and of any other device. Most are slower, so a refused run takes longer.
SPEEDS = {"cpu": 2e10, "other": 1e14}
PASSES = 3  # forward, and backward twice its cost
ELEMENTWISE = 64  # operations on each pair of tokens and head beside its products: softmax and what rules read


@dataclass(frozen=True)
class Classifier:
    """A Hugging Face vision model with its image processor, such as :func:`~captum_gmar.classifier.load_classifier`
    returns.

    Args:
        model (torch.nn.Module): The classifier, segmenter or detector.
        processor (transformers.BaseImageProcessor): It makes pixel values from images.
        size (int, optional): Pixels on a side at which the model runs, in place of the image processor's own size.

    Raises:
        TypeError: if the model is no ``torch.nn.Module``, or the processor cannot be called.
        ValueError: if the size is not a multiple of the model's patch size, or too large.
    """

    model: nn.Module
    processor: Any
    size: int | None = None

    def __post_init__(self) -> None:
        check_model(self.model)
        if self.processor is not None and not callable(self.processor):
            raise TypeError(f"processor must be the model's image processor, but got {self.processor!r}.")
        if self.size is None:
            return
        check_count(self.size, "size")
        if self.size > LARGEST:
            raise ValueError(f"size must be at most {LARGEST} pixels, but got {self.size}.")
        try:
            grid = patch_grid(self.model, self.size, self.size)
        except ValueError as error:
            raise ValueError(f"size must suit the model, but got {self.size}: {error}") from error
        if self.size % grid.patch_height or self.size % grid.patch_width:
            raise ValueError(
                f"size must be a multiple of the model's patch size, {grid.patch_height}x{grid.patch_width} pixels, "
                f"but got {self.size}."
            )
        hours = _hours(self.model, grid.patches, self.device)
        if hours > 1:
            raise ValueError(
                f"size must be one at which an image is explained within an hour, but got {self.size}, where "
                f"attention among {grid.patches:,} patches takes {hours:,.0f} hours or more. Pass a smaller size."
            )

    @cached_property
    def labels(self) -> dict[int, str]:
        """The name of every class."""
        config: Any = self.model.config
        names = config.id2label or {}
        return {index: str(names.get(index, f"class {index}")) for index in range(config.num_labels)}

    @property
    def device(self) -> torch.device:
        """The device of its parameters, on which pixel values must be."""
        return next(self.model.parameters()).device

    @property
    def is_multi_label(self) -> bool:
        """True if several classes may apply to an image at once."""
        return getattr(getattr(self.model, "config", None), "problem_type", None) == "multi_label_classification"

    def inputs(self, image: Image.Image) -> dict[str, Tensor]:
        """Return the model's inputs for an image, on the CPU.

        Returns:
            dict: **pixel_values**, a tensor (1, channels, height, width). If the image processor makes a
            **pixel_mask** (1, height, width) that the model takes, also that mask, which is zero at padding.

        Raises:
            TypeError: if it is no image.
            ValueError: from the image processor, if it cannot take the image or make this size.
        """
        _check_picture(image)
        made = self.processor(images=to_rgb(image), return_tensors="pt", **self._size_options())
        height, width = made["pixel_values"].shape[-2:]
        if self.size is not None and (height, width) != (self.size, self.size):
            raise ValueError(
                f"size must be one that the model's image processor can make, but got {self.size}, of which it "
                f"makes {height}x{width} pixels."
            )
        takes_mask = PADDING_MASK in made and PADDING_MASK in inspect.signature(self.model.forward).parameters
        return {name: made[name] for name in ("pixel_values", *([PADDING_MASK] if takes_mask else []))}

    def pixel_values(self, image: Image.Image) -> Tensor:
        """Return the pixel values of an image, on the CPU.

        Returns:
            Tensor (1, channels, height, width), as the model takes them.

        Raises:
            ValueError: as :meth:`inputs`.
        """
        return self.inputs(image)["pixel_values"]

    def frame(self, image: Image.Image) -> PhotoFrame:
        """Return the place of an image, or of a video's frame, of this size in the pixel values.

        Raises:
            TypeError: if it is no image.
            ValueError: if the image processor does more than resize, crop and pad.
        """
        _check_picture(image)
        if image.size not in self._frames:
            self._frames[image.size] = find_frame(self._process, self._colours, *image.size)
        return self._frames[image.size]

    def mask(self, mask: Image.Image) -> Tensor:
        """Return the place of an image's black and white mask in its pixel values: boolean (height, width)."""
        return self.frame(mask).mask(mask)

    def photo(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        """Return the photo (height, width, channels) in [0, 1] of pixel values (channels, height, width)."""
        return self._colours.photo(pixels).movedim(0, -1).clamp(0, 1).numpy()

    def view(self, image: Image.Image, pixels: Tensor) -> PhotoView:
        """Find where the pixel values of an image are in it, for :func:`~captum_gmar.visualize_attribution`.

        If the image processor does more than resize, crop and pad, the photo of the view is what the model sees.

        Args:
            image: The photo.
            pixels: Its pixel values (channels, height, width), all or the upper left part of them.

        Returns:
            2-element tuple of **photo**, **crop**: crop is left, top, right and bottom in pixels of the photo.
        """
        height, width = pixels.shape[-2:]
        try:
            return PhotoView(image, self.frame(image).to_photo((0, 0, width, height)))
        except ValueError:
            return PhotoView(self.photo(pixels), None)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the model's logits. Its position embeddings are interpolated if the images have another size.

        Returns:
            Tensor (N, classes).

        Raises:
            ValueError: from the model, if it cannot take images of this size.
        """
        options = {"interpolate_pos_encoding": True} if self._interpolates(*pixels.shape[-2:]) else {}
        return Logits(self.model)(pixels, **options)

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """Return the probabilities of logits (..., classes), which sum to 1 unless the model has several labels.

        Returns:
            Tensor of the logits' shape; None for a single logit.
        """
        if self.is_multi_label:
            return logits.sigmoid()
        return logits.softmax(-1) if logits.shape[-1] > 1 else None

    @cached_property
    def _colours(self) -> Colours:
        return Colours.read(self._process)

    @cached_property
    def _frames(self) -> dict[tuple[int, int], PhotoFrame]:
        return {}

    def _process(self, image: Image.Image) -> Tensor:
        """Return the model's input (channels, height, width) for a photo, or for a video of this one frame."""
        made = self.processor([image], return_tensors="pt", **self._size_options())
        values: Tensor | None = next((made[name] for name in PIXEL_NAMES if name in made), None)
        if values is None or values.dim() < 4 or len(values.flatten(0, -4)) != 1:
            shape = "none" if values is None else f"values of shape {tuple(values.shape)}"
            raise ValueError(f"processor must make one picture of a photo, but makes {shape}.")
        return values.flatten(0, -4)[0].cpu()

    def _size_options(self) -> dict[str, Any]:
        if self.size is None:
            return {}
        square = {"height": self.size, "width": self.size}
        trained = dict(getattr(self.processor, "size", None) or {})
        if not getattr(self.processor, "do_center_crop", None):
            return {"do_resize": True, "size": square}
        # The crop takes the same part of the photo as at the model's own size.
        margin = max(1, self._edge(trained) / self._edge(dict(self.processor.crop_size)))
        resized = round(self.size * margin)
        size = {key: resized for key in ("height", "width", "shortest_edge") if trained.get(key)}
        return {"do_resize": True, "size": size or square, "crop_size": square}

    @staticmethod
    def _edge(size: dict[str, int]) -> int:
        return size.get("shortest_edge") or size["height"]

    def _interpolates(self, height: int, width: int) -> bool:
        config: Any = getattr(self.model, "config", None)
        config = getattr(config, "vision_config", config)
        trained = getattr(config, "image_size", (height, width))
        trained = (trained, trained) if isinstance(trained, int) else tuple(trained)
        return trained != (height, width) and _accepts(self.model, "interpolate_pos_encoding")


def check_classifier(value: object, name: str) -> None:
    """Check that the argument of this name is a :class:`Classifier`."""
    if not isinstance(value, Classifier):
        raise TypeError(f"{name} must be a Classifier(model, processor), but got {type(value).__name__}.")


def _check_picture(image: object) -> None:
    if not isinstance(image, Image.Image):
        raise TypeError(f"image must be a PIL image, but got {type(image).__name__}.")


def _accepts(model: nn.Module, option: str) -> bool:
    """Return whether the model takes the option, or passes it on to a part that does."""
    parameters = inspect.signature(model.forward).parameters
    if option in parameters:
        return True
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return passes_on and any(option in inspect.signature(part.forward).parameters for part in model.modules())


def _hours(model: nn.Module, tokens: int, device: torch.device) -> float:
    """Return the hours of attention among so many tokens, forward and backward; zero if its size is not known."""
    config: Any = config_of(model)
    sizes: list[Any] = [
        getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    ]
    if not all(isinstance(number, int) for number in sizes):
        return 0
    layers, width, heads = sizes
    operations = PASSES * layers * tokens**2 * (4 * width + ELEMENTWISE * heads)  # two products of width each
    speed = SPEEDS["cpu"] * torch.get_num_threads() if device.type == "cpu" else SPEEDS["other"]
    return float(operations / speed / 3600)
