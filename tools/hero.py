"""Draw the picture of the README: ``python -m tools.hero MODEL PHOTO [PHOTO …] [--output FILE]``.

Each row has a photo and the smooth maps of token evidence and of GMAR for the class that the model predicts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from captum_gmar import get_method
from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.visualization import overlay_attribution
from captum_gmar.visualization._style import percent_text

METHODS = {"token-evidence": "token evidence", "gmar-l1": "GMAR"}
HEIGHT, LINE, GAP, LETTERS = 240, 34, 10, 26  # pixels; letters can be read on a phone
HERE = Path(__file__).resolve().parents[1] / "docs" / "hero"


def draw_row(classifier: Classifier, path: Path) -> list[tuple[Image.Image, str]]:
    """Return the photo and its maps, each with the line above it."""
    photo = Image.open(path).convert("RGB")
    pixels = classifier.inputs(photo)["pixel_values"]
    with torch.no_grad():
        shares = classifier.model(pixels).logits.softmax(-1)[0]
    target = int(shares.argmax())
    name = classifier.labels[target].split(",")[0]
    row = [(photo, f"{name}, {percent_text(float(shares[target]))}")]
    for method, text in METHODS.items():
        relevance = get_method(method, classifier.model).relevance(pixels, target)[0]
        row.append((overlay_attribution(relevance, photo, crop=classifier.frame(photo).crop, smooth=True), text))
    return [(image.resize((round(image.width * HEIGHT / image.height), HEIGHT)), text) for image, text in row]


def compose(rows: Sequence[Sequence[tuple[Image.Image, str]]]) -> Image.Image:
    """Return all rows in one picture; the ground is transparent and letters are grey, for light and for dark pages."""
    width = max(sum(image.width + GAP for image, _ in row) for row in rows) - GAP
    page = Image.new("RGBA", (width, len(rows) * (HEIGHT + LINE + GAP) - GAP), (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(page), ImageFont.truetype(findfont("DejaVu Sans"), LETTERS)
    room = min(image.width / font.getlength(text) for row in rows for image, text in row)
    font = font.font_variant(size=LETTERS * min(1, room))
    for number, row in enumerate(rows):
        left, top = 0, number * (HEIGHT + LINE + GAP)
        for image, text in row:
            pen.text((left, top), text, fill="grey", font=font)
            page.paste(image, (left, top + LINE))
            left += image.width + GAP
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.hero", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=HERE / "hero.webp")
    arguments = parser.parse_args()
    classifier = load_classifier(arguments.model)
    compose([draw_row(classifier, path) for path in arguments.photos]).save(arguments.output, quality=85)


if __name__ == "__main__":
    main()
