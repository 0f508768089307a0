"""Write the gallery of answers and mistakes: ``python -m tools.gallery --model MODEL --photos FOLDER``.

FOLDER holds photos that come with scikit-image (``skimage/data``). The command writes a picture of each, a page with
the proof, and a section of ``index.md``: a sentence made from the numbers, the terms of the photo and the command.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from captum_gmar import get_method
from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.files.images import read_image
from captum_gmar.files.writing import write_text
from captum_gmar.inspection.class_page import ClassPage
from captum_gmar.metrics import Blur
from captum_gmar.visualization import overlay_attribution
from captum_gmar.visualization._style import percent_text
from tools.hero import HEIGHT, compose

HERE = Path(__file__).resolve().parents[1] / "docs" / "static" / "gallery"
METHOD, CLASSES, SIDE = "token-evidence", 5, 320  # of a page, which is committed; pixels of its drawn photo
SHARE_REMOVED = 0.1  # of the patches, in the sentence


class Photo(NamedTuple):
    """A photo that may be given away."""

    file: str
    shows: str
    terms: str  # as scikit-image's documentation gives them


PHOTOS = (
    Photo("chelsea.png", "a tabby cat", "CC0, by the photographer Stefan van der Walt"),
    Photo("coffee.png", "a cup of espresso", "CC0, by the photographer Rachel Michetti"),
    Photo("rocket.jpg", "a rocket that lifts off", "public domain, by SpaceX"),
    Photo("astronaut.png", "the astronaut Eileen Collins", "public domain, by NASA"),
    Photo("camera.png", "a photographer with a camera", "CC0, by the photographer Lav Varshney"),
    Photo("clock_motion.png", "a wall clock, blurred by motion", "public domain, by Stefan van der Walt"),
    Photo("horse.png", "the silhouette of a horse", "CC0, by Andreas Preuss"),
    Photo("retina.jpg", "a human retina", "CC0, by Mikael Häggström"),
    Photo("hubble_deep_field.jpg", "distant galaxies", "public domain, by NASA"),
)


class Story(NamedTuple):
    """The numbers of a photo."""

    name: str  # of the likeliest class
    share: float  # its probability
    second: str
    removed: int  # patches
    without: float  # its probability without the strongest of them
    random: float  # the median without as many patches in random orders
    least: float
    most: float


def shrink(photo: Image.Image) -> Image.Image:
    """Return the photo as it is drawn; the model sees the whole."""
    small = photo.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def tell(classifier: Classifier, photo: Image.Image) -> tuple[ClassPage, Story]:
    """Return the page of a photo, and the numbers of its sentence."""
    pixels = classifier.pixel_values(photo)
    view = classifier.view(shrink(photo), pixels[0])
    options: dict[str, Any] = {"crop": view.crop, "forward_func": classifier.logits, "proof": Blur()}
    page = ClassPage(classifier.model, pixels, view.photo, classifier.labels, (METHOD,), classes=CLASSES, **options)
    content = json.loads(re.search('id="content">(.*?)</script>', page.html, re.DOTALL)[1])  # type: ignore[index]
    proof, (first, second, *_) = content["proof"], content["classes"]
    place = max(index for index, count in enumerate(proof["counts"]) if count <= SHARE_REMOVED * proof["counts"][-1])
    least, median, most = (course[place] for course in proof["random"][0][0])
    without = proof["maps"][0][0]["scores"][0][place]
    names = (each["name"].split(",")[0] for each in (first, second))
    story = Story(next(names), first["score"], next(names), proof["counts"][place], without, median, least, most)
    return page, story


def sentence(story: Story, shows: str) -> str:
    """Return what the model said, and what the removal showed."""
    band = f"{percent_text(story.least)} to {percent_text(story.most)}"
    return (
        f"The photo shows {shows}. The model's answer is {story.name}, {percent_text(story.share)}, before "
        f"{story.second}. Without the {story.removed} patches that speak for it most, {percent_text(story.without)} "
        f"remain; without {story.removed} patches in random orders, {percent_text(story.random)} ({band} in ten draws)."
    )


def draw(classifier: Classifier, photo: Image.Image, story: Story) -> Image.Image:
    """Return the photo and the smooth maps for its two likeliest classes."""
    pixels, small = classifier.pixel_values(photo), shrink(photo)
    view = classifier.view(small, pixels[0])
    row = [(small, f"{story.name}, {percent_text(story.share)}")]
    for target, name in zip(classifier.logits(pixels)[0].topk(2).indices.tolist(), story[:3:2], strict=True):
        relevance = get_method(METHOD, classifier.model).relevance(pixels, target)[0]
        row.append((overlay_attribution(relevance, view.photo, crop=view.crop, smooth=True), f"for {name}"))
    return compose(
        [[(image.resize((round(image.width * HEIGHT / image.height), HEIGHT)), text) for image, text in row]]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.gallery", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    classifier, sections = load_classifier(arguments.model), list[str]()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for file, shows, terms in PHOTOS:
        photo, stem = read_image(arguments.photos / file), Path(file).stem
        page, story = tell(classifier, photo)
        page.save(arguments.output / f"{stem}.html")
        draw(classifier, photo, story).save(arguments.output / f"{stem}.webp", quality=80)
        sections.append(
            f"### {story.name}\n\n![{shows}, and its evidence for {story.name} and {story.second}]"
            f"(/static/gallery/{stem}.webp)\n\n{sentence(story, shows)}\n\n"
            f'<a href="_static/gallery/{stem}.html">Try it: classes, patches and removal</a>. Photo: {file} of '
            f"scikit-image, {terms}.\n\n```text\ncaptum-gmar explain {file} --model MODEL --output {stem}.html\n```"
        )
        write_text(arguments.output / "index.md", "\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
