"""The mapping from a photo to the model's input and back, measured on test pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.files.images import to_rgb

Corners = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
CORNERS = "left, top, right and bottom"
Process = Callable[[Image.Image], Tensor]  # the model's input (3, height, width) from a photo

WHITE = 255
NOISE = 8  # levels of a colour in test pictures of coordinates
FLAT = 256  # pixels on a side of a test picture of one colour
WHOLE = 0.25  # pixels within which a measured edge is taken to be on a whole pixel, where resizing leaves it
ALMOST_ALL = 0.95  # share of a mask's pixels that must be black or white: edges may be grey


class Colours(NamedTuple):
    """The values that stand for colours in a model's input: one for each channel, and which channel is red."""

    black: Tensor  # (3, 1, 1)
    white: Tensor
    channels: tuple[int, ...]  # of red, green and blue

    @classmethod
    def read(cls, process: Process) -> "Colours":
        """Read them from what becomes of a black, a white and a red picture."""
        made = [process(Image.new("RGB", (FLAT, FLAT), name)).double() for name in ("black", "white", "red")]
        apart = (made[1] - made[0]).abs().amin(0)
        place = divmod(int(apart.argmax()), apart.shape[1])  # no padding, which is the same in all three
        black, white, red = (each[:, place[0], place[1], None, None] for each in made)
        if len(black) != 3 or not (white - black).abs().min() > 0:
            raise ValueError(f"processor must keep the three colours of a photo apart, but makes {len(black)} of them.")
        is_reversed = (red - black)[0].abs() < (red - black)[2].abs()
        return cls(black, white, (2, 1, 0) if is_reversed else (0, 1, 2))

    def photo(self, pixels: Tensor) -> Tensor:
        """Return red, green and blue (3, height, width), black at 0 and white at 1, of a model's input."""
        return ((pixels.cpu() - self.black) / (self.white - self.black))[list(self.channels)].float()


@dataclass(frozen=True)
class PhotoFrame:
    """The place of a photo in the model's input, whatever resizing, cropping and padding is between them.

    Example::

        >>> frame = PhotoFrame((100, 200), (50, 50), (-25, 0, 75, 50))  # the middle of a wide photo
        >>> frame.seen
        (50.0, 0.0, 150.0, 100.0)
        >>> frame.from_photo((60, 20, 80, 40))
        (5.0, 10.0, 15.0, 20.0)
    """

    photo_size: tuple[int, int]  # height and width
    size: tuple[int, int]  # height and width of the model's input
    whole: Corners  # the whole photo in pixels of the model's input: beyond its edges if cropped, within if padded

    @property
    def crop(self) -> Corners:
        """Left, top, right and bottom of the model's input, in pixels of the photo; beyond its edges where padded."""
        height, width = self.size
        return self.to_photo((0, 0, width, height))

    @property
    def seen(self) -> Corners:
        """Left, top, right and bottom of the part that the model sees, in pixels of the photo."""
        return _intersect(self.crop, self._photo_corners)

    @property
    def share(self) -> float:
        """Share of the photo that the model sees."""
        left, top, right, bottom = self.seen
        return (right - left) * (bottom - top) / (self.photo_size[0] * self.photo_size[1])

    def from_photo(self, box: Corners) -> Corners:
        """Return where a box in pixels of the photo is in the model's input."""
        return _map_box(box, self._photo_corners, self.whole)

    def to_photo(self, box: Corners) -> Corners:
        """Return where a box in pixels of the model's input is in the photo."""
        return _map_box(box, self.whole, self._photo_corners)

    def point(self, point: Sequence[float]) -> tuple[float, float]:
        """Return where a point of the photo, x and y, is in the model's input."""
        left, top, right, bottom = self.seen
        x, y = check_numbers(point, "point", "x and y")
        if not (left <= x < right and top <= y < bottom):
            raise ValueError(f"point must be {self._within(self.seen)}, but got {x:g},{y:g}.")
        return self.from_photo((x, y, x, y))[:2]

    def box(self, box: Corners) -> Corners:
        """Return the part of a box of the photo that the model sees, in pixels of the photo."""
        check_numbers(box, "box", CORNERS)
        is_in_photo = _intersect(box, self._photo_corners) == tuple(box)
        left, top, right, bottom = shared = _intersect(box, self.seen)
        if not (is_in_photo and left < right and top < bottom):
            limits = self._within(self.seen if is_in_photo else self._photo_corners)
            raise ValueError(f"box must be {limits}, but got {','.join(f'{corner:g}' for corner in box)}.")
        return shared

    def mask(self, mask: Image.Image) -> Tensor:
        """Return where a black and white mask of the photo is white in the model's input: boolean (H, W)."""
        photo_height, photo_width = self.photo_size
        if mask.size != (photo_width, photo_height):
            raise ValueError(
                f"mask must be of the photo's {photo_width}x{photo_height} pixels, but got {mask.width}x{mask.height}."
            )
        grey = (to_rgb(mask) if mask.mode[0] in "FI" else mask).convert("L")  # Pillow clips more than 8 bits
        _check_black_and_white(grey)
        left, top, right, bottom = self.whole
        across, down = photo_width / (right - left), photo_height / (bottom - top)
        affine = across, 0, -left * across, 0, down, -top * down
        (height, width), method = self.size, Image.Transform.AFFINE
        placed = grey.transform((width, height), method, affine, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(placed)) > WHITE / 2

    @property
    def _photo_corners(self) -> Corners:
        return 0.0, 0.0, float(self.photo_size[1]), float(self.photo_size[0])

    def _within(self, part: Corners) -> str:
        what = "in the photo" if part == self._photo_corners else "in the part of the photo that the model sees"
        return f"{what}, from {part[0]:g},{part[1]:g} to {part[2]:g},{part[3]:g} in pixels"


def check_numbers(values: Any, argument: str, names: str) -> list[float]:
    """Return the values as finite numbers, as many as there are names."""
    try:
        numbers = list(map(float, values))
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(names.replace(",", "").split(" ")) - 1:
        raise ValueError(f"{argument} must be {names}, in pixels of the photo, but got {values!r}.")
    return numbers


class PhotoView(NamedTuple):
    """A photo to draw on: :meth:`Classifier.view` returns it."""

    photo: Image.Image | npt.NDArray[np.float32]
    crop: Corners | None  # the place of the pixel values in the photo; None: all of it


def find_frame(process: Process, colours: Colours, width: int, height: int) -> PhotoFrame:
    """Return the place of photos of this size in what an image processor, which makes these colours, makes of them.

    Processors that turn a photo, fold it or cut it into tiles raise ValueError.
    """

    def see(picture: Image.Image) -> Tensor:
        return colours.photo(process(picture))

    frame = _measure_frame(see, (height, width), (0, 0, width, height))
    if frame.share > 1 / 4:
        return frame
    left, top, right, bottom = frame.seen  # coordinates of this part alone are finer
    return _measure_frame(see, (height, width), (int(left), int(top), ceil(right), ceil(bottom)))


def _measure_frame(see: Process, photo_size: tuple[int, int], part: tuple[int, int, int, int]) -> PhotoFrame:
    """Return the frame as it follows from coordinates of one part of the photo, which the colours of two pictures hold.

    Red is the sum of a pixel's place across and down, and green their difference. Both vary both ways, and noise, which
    one picture adds and the other takes off, makes rounding to whole levels another at each pixel.
    """
    (height, width), (left, top, right, bottom) = photo_size, part
    across = np.arange(width, dtype=np.float32).clip(left, right - 1) - left
    down = np.arange(height, dtype=np.float32)[:, None].clip(top, bottom - 1) - top
    step, away = (WHITE - 4 * NOISE) / (right - left + bottom - top), bottom - top - 1
    step = int(step) if step > 1 else step  # whole levels need no rounding
    noise = NOISE * np.random.default_rng(0).uniform(-1, 1, (height, width, 2)).astype(np.float32)
    planes: npt.NDArray[Any] = 2 * NOISE + step * np.stack([across + down, across + away - down], -1)
    one, other = (
        WHITE * see(_test_picture(planes + sign * noise, blue)).double() for sign, blue in ((1, 0), (-1, WHITE))
    )
    rows, columns = map(_extent, ((other - one)[2] > WHITE / 2).nonzero(as_tuple=True))
    middle = slice(2), _middle_half(rows), _middle_half(columns)  # away from the photo's edges, where resampling bends
    both, apart = (((one + other)[middle] / 2 - 2 * NOISE) / step).numpy()
    slack = 3 * NOISE / step
    left_edge, right_edge = _find_edges(left + (both + apart - away) / 2, columns, width, slack)
    top_edge, bottom_edge = _find_edges((top + (both - apart + away) / 2).T, rows, height, slack)
    return PhotoFrame(photo_size, (one.shape[1], one.shape[2]), (left_edge, top_edge, right_edge, bottom_edge))


def _test_picture(red_and_green: npt.NDArray[Any], blue: int) -> Image.Image:
    height, width, _ = red_and_green.shape
    levels = np.full((height, width, 3), blue, np.uint8)
    levels[..., :2] = red_and_green.round()
    return Image.fromarray(levels)


def _extent(places: Tensor) -> range:
    if not len(places):
        raise ValueError("processor must make a picture of the photo, but nothing of the photo is in what it makes.")
    return range(int(places.min()), int(places.max()) + 1)


def _middle_half(places: range) -> slice:
    return slice(places.start + len(places) // 4, places.stop - len(places) // 4)


def _find_edges(coordinates: npt.NDArray[np.float64], places: range, length: int, slack: float) -> tuple[float, float]:
    """Return where the photo begins and ends along the columns of its pixels' coordinates (rows, columns)."""
    inner = _middle_half(places)
    columns = np.arange(inner.start, inner.stop)
    if length == 1 or len(columns) == 1:
        return places.start, places.stop
    slope, start = np.polyfit(columns, coordinates.mean(0), 1)
    bend = np.abs(coordinates - (slope * columns + start)).max()
    if slope <= 0 or bend > slack + 2 * max(1, slope):
        raise ValueError("processor must resize, crop or pad the photo, but turns it, folds it or cuts it into tiles.")
    first = 0.5 - (start + 0.5) / slope
    return _round_edge(first, places.start, slope), _round_edge(first + length / slope, places.stop, slope)


def _round_edge(measured: float, visible: int, slope: float) -> float:
    """Round a measured edge of the photo to whole pixels, if it is close to them.

    ``visible`` is the first or last pixel of the photo that is seen, ``slope`` the photo's pixels for one of the
    model's.
    """
    if abs(measured - visible) < max(WHOLE, 0.5 / slope):  # half a pixel of the photo
        return visible
    return round(measured) if abs(measured - round(measured)) < WHOLE else measured


def _map_box(box: Corners, old: Corners, new: Corners) -> Corners:
    """Return the box of a plane whose corners move from old to new ones."""
    across, down = (new[2] - new[0]) / (old[2] - old[0]), (new[3] - new[1]) / (old[3] - old[1])
    left, right = (new[0] + (edge - old[0]) * across for edge in (box[0], box[2]))
    top, bottom = (new[1] + (edge - old[1]) * down for edge in (box[1], box[3]))
    return left, top, right, bottom


def _intersect(one: Corners, other: Corners) -> Corners:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _check_black_and_white(mask: Image.Image) -> None:
    values = np.asarray(mask)
    share = float((np.minimum(values, WHITE - values) < WHITE / 4).mean())
    if share < ALMOST_ALL:
        raise ValueError(
            f"mask must be black and white, but {100 * (1 - share):.0f}% of its pixels are neither. Pass a picture "
            "that is white over the places that count and black elsewhere."
        )
