"""Films of maps over photos: moments of a video, words of an answer, or layers of a model."""

from collections.abc import Sequence

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from captum_gmar.visualization._heatmap import (
    OUTLIERS,
    PAPER,
    Array,
    Crop,
    Heat,
    Map,
    Pixels,
    blend,
    heat_of,
    photo_of,
    scale_together,
    tint,
)
from captum_gmar.visualization._panels import value_labels
from captum_gmar.visualization._style import SIGNS

SIDE, LINE_HEIGHT, PAD, LETTERS = 480, 24, 10, 17  # pixels: the least longer side of the photo, and its texts
MOST_LINES = 3  # of a caption, of which the last are shown
BAR = 220, 10


def compose_film(
    maps: Tensor | Array | Sequence[Map],
    images: Pixels | Sequence[Pixels],
    captions: Sequence[str],
    *,
    moments: Sequence[str] = (),
    label: str = "",
    crop: Crop | None = None,
    smooth: bool = True,
    share_scale: bool = True,
    outlier_perc: float = OUTLIERS,
) -> list[Image.Image]:
    """Compose the frames of a film: each map over its photo, a caption above, colour bar and moment below.

    Args:
        maps (Tensor, numpy.ndarray or sequence): M maps, each as :func:`~captum_gmar.visualize_attribution` takes one.
        images (PIL.Image.Image, Tensor, numpy.ndarray or sequence of them): One photo for all maps, or a list of photos
            that the maps divide evenly, such as the frames of a video.
        captions (sequence of str): One for each map, such as the words of an answer so far.
        moments (sequence of str, optional): A text at the lower right of each frame, such as its time.
        label (str, optional): Quantity and unit of the colour bar, in a line below it.
        smooth (bool, optional): Interpolate between the patches.
        share_scale (bool, optional): One colour scale for all maps; otherwise each has its own.
        crop, outlier_perc: those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        list of PIL.Image.Image: RGB, all of one size, with photos of 480 pixels or more on the longer side.
        :func:`captum_gmar.files.videos.save_film` writes them as GIF or MP4.

    Raises:
        ValueError: if there are no maps, captions or moments are not as many, or the photos cannot be divided evenly.

    Example::

        >>> import torch
        >>> from captum_gmar.visualization import compose_film
        >>> film = compose_film(torch.rand(3, 7, 7), torch.rand(3, 60, 80), ["a", "a red", "a red disc"])
        >>> len(film), film[0].width
        (3, 480)
    """
    photos = list(map(photo_of, images)) if isinstance(images, Sequence) else [photo_of(images)] * len(maps)
    if not len(maps) or len(captions) != len(maps) or len(photos) % len(maps):
        raise ValueError(
            "maps must be at least one, with a caption each, and divide the images evenly, but got "
            f"{len(maps)} maps, {len(captions)} captions and {len(photos)} images."
        )
    if moments and len(moments) != len(photos):
        raise ValueError(f"moments must be one for each of the {len(photos)} frames, but got {len(moments)}.")
    heats = [heat_of(each, photos[0], f"maps[{number}]") for number, each in enumerate(maps)]
    heats = scale_together(heats, "maps", outlier_perc) if share_scale else heats
    font, repeats = ImageFont.truetype(findfont("DejaVu Sans"), LETTERS), len(photos) // len(maps)
    factor = max(1, SIDE / max(photos[0].size))
    width, height = (round(factor * size) for size in photos[0].size)
    place = None if crop is None else tuple(factor * corner for corner in crop)
    texts = [_last_lines(caption, font, width - 2 * PAD) for caption in captions]
    head = max(map(len, texts)) * LINE_HEIGHT + 2 * PAD
    frames, foot = [], head + height + 2 * LINE_HEIGHT
    size = width, foot + bool(label) * LINE_HEIGHT + PAD
    for number, photo in enumerate(photos):
        heat, page = heats[number // repeats], Image.new("RGB", size, "white")
        page.paste(blend(photo.resize((width, height)), heat, place, smooth), (0, head))  # type: ignore[arg-type]
        pen = ImageDraw.Draw(page)
        pen.multiline_text((PAD, PAD), "\n".join(texts[number // repeats]), "black", font, spacing=4)
        _draw_bar(page, pen, heat, head + height + PAD, font)
        moment = moments[number] if moments else f"{number + 1} of {len(photos)}"
        pen.text((width - PAD, head + height + PAD), moment, "black", font, anchor="ra")
        if heat.is_signed:
            pen.text((width - PAD, foot), SIGNS, "black", font.font_variant(size=13), anchor="rs")
        pen.text((PAD, foot + LINE_HEIGHT), label, "black", font.font_variant(size=13), anchor="ls")
        frames.append(page)
    return frames


def _draw_bar(page: Image.Image, pen: ImageDraw.ImageDraw, heat: Heat, top: int, font: ImageFont.FreeTypeFont) -> None:
    strength = np.linspace(-heat.is_signed, 1, BAR[0])[None].repeat(BAR[1], 0)
    page.paste(tint(np.full_like(strength, PAPER), strength), (PAD, top))
    for label, anchor, x in zip(value_labels(heat), ("la", "ma", "ra"), (0, 0.5, 1), strict=False):
        pen.text((PAD + x * BAR[0], top + BAR[1] + 4), label, "black", font.font_variant(size=13), anchor=anchor)


def _last_lines(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Return the last lines of a text in this width, as few as hold all of it or as many as are shown."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[-MOST_LINES:]
