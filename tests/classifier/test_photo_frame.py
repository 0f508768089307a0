"""The place of a photo in the model's input: what is drawn in the photo is found there, for every image processor."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import transformers
from installed import HAS_TRANSFORMERS_5
from PIL import Image, ImageDraw
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from captum_gmar.classifier import Classifier
from captum_gmar.classifier.photo_frame import Colours, PhotoFrame, find_frame

pytestmark = pytest.mark.fault

PHOTO = (150, 90)  # width, height
BAR = (60, 30, 72, 51)  # left, top, right, bottom
CORNER = (0, 0, 40, 24)
# Of what processors need beside a photo, or do with its content.
OPTIONS = {"NougatImageProcessor": {"do_crop_margin": False}}
SIZES = ("size", "crop_size", "pad_size")


def processor_names():
    """Those that transformers has for its models, of the backends that are installed."""
    number = 1 + is_torchvision_available()
    for names in IMAGE_PROCESSOR_MAPPING_NAMES.values():
        backends = [names.get(kind) for kind in ("pil", "torchvision")] if isinstance(names, dict) else names
        yield from filter(None, backends[:number])


def quarter_sized(name):
    """The image processor of this name, at a quarter of its sizes, to be quick."""
    kind = getattr(transformers, name)
    options = next((options for start, options in OPTIONS.items() if name.startswith(start)), {})
    sizes = {key: getattr(kind(**options), key, None) for key in SIZES}
    smaller = {
        key: {side: pixels // 4 for side, pixels in dict(size).items() if pixels}
        for key, size in sizes.items()
        if isinstance(size, Mapping) or hasattr(size, "height")
    }
    return kind(**options, **smaller)


def drawn(background, **rectangles):
    """A photo with rectangles of these colours."""
    photo = Image.new("RGB", PHOTO, background)
    for colour, (left, top, right, bottom) in rectangles.items():
        ImageDraw.Draw(photo).rectangle((left, top, right - 1, bottom - 1), fill=colour)
    return photo


def extent(change):
    """Left, top, right and bottom of where something has changed by more than half."""
    rows, columns = (change > change.max() / 2).nonzero(as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("name", sorted({*processor_names()}))
def test_what_is_drawn_in_a_photo_lies_there_in_the_input(name):
    photos = {"empty": drawn("black"), "with a bar": drawn("black", white=BAR), "red": drawn("black", red=CORNER)}
    try:
        processor = quarter_sized(name)
        made = {what: dict(processor([photo], return_tensors="pt")) for what, photo in photos.items()}
    except Exception as error:
        pytest.skip(f"takes more than a photo: {str(error).strip().splitlines()[0][:60]}")
    if any("pixel_values" not in each or each["pixel_values"].ndim < 4 for each in made.values()):
        pytest.skip("makes no picture")
    inputs = {what: each["pixel_values"].flatten(0, -4) for what, each in made.items()}
    classifier = Classifier(torch.nn.Identity(), processor)
    if len(inputs["empty"]) > 1 or name.startswith("MiniCPM"):
        with pytest.raises(ValueError, match=r"must make one picture of a photo|turns it, folds it or cuts it"):
            classifier.frame(photos["empty"])
        pytest.skip("cuts a photo into tiles")

    frame = classifier.frame(photos["empty"])
    assert frame.size == inputs["empty"].shape[-2:]
    found = extent((inputs["with a bar"] - inputs["empty"])[0].abs().sum(0))
    assert found == pytest.approx(frame.from_photo(BAR), abs=1)
    # A red corner is red there, whatever order of channels the model takes and however they are scaled.
    shown = classifier.photo(inputs["red"][0])
    left, top, right, bottom = frame.from_photo(frame.box(CORNER))
    assert shown[round((top + bottom) / 2), round((left + right) / 2)] == pytest.approx([1, 0, 0], abs=0.01)


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ViTImageProcessor(size={"height": 48, "width": 64}),
        transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        transformers.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
        transformers.DetrImageProcessor(
            size={"shortest_edge": 40, "longest_edge": 90}, pad_size={"height": 96, "width": 100}
        ),
        transformers.LevitImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
    ],
    ids=lambda processor: type(processor).__name__,
)
@pytest.mark.parametrize("size", [(40, 30), (301, 77), (64, 640), (500, 375), (1201, 1600)])
def test_a_mask_is_where_the_image_processor_puts_it(processor, size):
    noise = np.random.default_rng(0).random((9, 7)) > 0.5
    mask = Image.fromarray(noise).convert("L").resize(size, Image.Resampling.NEAREST)
    plain = {"do_rescale": False, "resample": Image.Resampling.NEAREST}
    plain |= {"do_normalize": False} if hasattr(processor, "do_normalize") else {}
    made = processor(mask.convert("RGB"), return_tensors="pt", **plain)["pixel_values"][0, 0]
    found = Classifier(torch.nn.Identity(), processor).mask(mask)
    assert (
        float((found != (made > 127)).float().mean()) < 0.002
    )  # where a pixel begins on another's middle, by rounding


def test_cropping_by_hand():
    # 450x150 resized to 1632x544, of which the middle 512x512 is seen.
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 544}, crop_size={"height": 512, "width": 512}
    )
    frame = Classifier(torch.nn.Identity(), processor).frame(Image.new("RGB", (450, 150)))
    assert (frame.size, frame.whole) == ((512, 512), (-560, -16, 1072, 528))
    scale = 1632 / 450
    assert frame.seen == pytest.approx((560 / scale, 16 / scale, 1072 / scale, 528 / scale))
    assert frame.share == pytest.approx(512 * 512 / (1632 * 544))
    assert frame.point((225, 75)) == pytest.approx((256, 256))
    assert frame.point((175, 75)) == pytest.approx((175 * scale - 560, 256))
    assert frame.box((0, 0, 225, 75)) == pytest.approx((560 / scale, 16 / scale, 225, 75))
    assert frame.to_photo(frame.from_photo((1, 2, 3, 4))) == pytest.approx((1, 2, 3, 4))


def test_padding_by_hand():
    # 90x30 resized to 60x20 and padded below and to the right.
    processor = transformers.DetrImageProcessor(
        size={"shortest_edge": 20, "longest_edge": 60}, pad_size={"height": 64, "width": 80}
    )
    frame = Classifier(torch.nn.Identity(), processor).frame(Image.new("RGB", (90, 30)))
    assert (frame.size, frame.whole, frame.seen) == ((64, 80), (0, 0, 60, 20), (0, 0, 90, 30))
    white = frame.mask(Image.new("L", (90, 30), 255))
    assert white[:20, :60].all()
    assert white.sum() == 20 * 60


def test_a_photo_smaller_than_the_crop_is_padded():
    processor = transformers.CLIPImageProcessor(do_resize=False, crop_size={"height": 40, "width": 40})
    frame = Classifier(torch.nn.Identity(), processor).frame(Image.new("RGB", (20, 80)))
    assert frame.whole == (10, -20, 30, 60)
    assert frame.seen == (0, 20, 20, 60)


# Of a single pixel older versions of transformers take the colours for rows.
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (2, 5)] if HAS_TRANSFORMERS_5 else [(2, 200), (2, 5)])
def test_the_smallest_photos(size):
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    frame = Classifier(torch.nn.Identity(), processor).frame(Image.new("RGB", size))
    assert frame.whole == pytest.approx((0, 0, 32, 32), abs=0.01)


CROPPED = PhotoFrame((100, 200), (50, 50), (-25, 0, 75, 50))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 200), np.uint8))
WHOLE = PhotoFrame((100, 200), (50, 50), (0, 0, 50, 50))


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (lambda: CROPPED.point((20, 50)), "point must be in the part of the photo that the model sees, from 50,0 to"),
        (lambda: CROPPED.point((150, 50)), "in pixels, but got 150,50"),
        (lambda: WHOLE.point((200, 50)), "point must be in the photo, from 0,0 to 200,100 in pixels, but got 200,50"),
        (lambda: WHOLE.point((-1, 50)), "point must be in the photo"),
        (lambda: CROPPED.box((0, 0, 50, 100)), "box must be in the part of the photo that the model sees, from 50,0"),
        (lambda: CROPPED.box((0, 0, 201, 100)), "box must be in the photo, from 0,0 to 200,100 in pixels, but got 0,0"),
        (lambda: WHOLE.box((9, 9, 9, 20)), "box must be in the photo"),
        (lambda: WHOLE.mask(Image.new("L", (9, 9))), "mask must be of the photo's 200x100 pixels, but got 9x9"),
        (lambda: WHOLE.mask(NOISE), "mask must be black and white, but 49% of its pixels are neither"),
    ],
)
def test_what_the_model_does_not_see_is_refused(find, message):
    with pytest.raises(ValueError, match=message):
        find()


def test_a_mask_may_have_grey_edges():
    mask = drawn("black", white=BAR).resize((600, 360)).convert("L")
    assert int(PhotoFrame((360, 600), (90, 150), (0, 0, 150, 90)).mask(mask).sum()) == 12 * 21


def turned(photo):
    return plain(photo.transpose(Image.Transpose.ROTATE_90))


def plain(photo):
    return torch.from_numpy(np.array(photo)).movedim(-1, 0) / 255


def mirrored(photo):
    return plain(photo).flip(-1)


def nothing(photo):
    return torch.zeros(3, 8, 8)


@pytest.mark.parametrize("process", [turned, mirrored])
def test_a_photo_that_is_turned_is_refused(process):
    with pytest.raises(ValueError, match="but turns it, folds it or cuts it into tiles"):
        find_frame(process, Colours.read(plain), 80, 60)


def test_an_image_processor_that_sees_nothing_is_refused():
    with pytest.raises(ValueError, match="processor must keep the three colours of a photo apart"):
        Colours.read(nothing)
    with pytest.raises(ValueError, match="nothing of the photo is in what it makes"):
        find_frame(nothing, Colours.read(plain), 80, 60)
