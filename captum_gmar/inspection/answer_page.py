"""A page of HTML of an answer: touch a word to see what of the pictures fed it, a patch to see the words that it fed.

It holds everything that it needs, so it works without a server: from a file, and in a saved notebook.
"""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from captum_gmar.files.writing import write_text
from captum_gmar.visualization._heatmap import Pixels, photo_of
from captum_gmar.visualization._style import AGAINST, FOR, SIGNS
from captum_gmar.vlm.attribution import AnswerAttribution

LARGEST_SIDE = 768  # pixels of a picture in the page
_DIGITS = 4  # significant, of relevance


class AnswerPage:
    """
    An answer, each word with its map, as a page of HTML; in Jupyter the last line of a cell shows it.

    Args:
        attribution (AnswerAttribution): of an answer; its tokens are put together to words.
        images (Tensor, numpy.ndarray, PIL.Image.Image, or a sequence of them): the pictures, as
            :func:`~captum_gmar.visualize_attribution` takes them.
        prompt (str, optional): what the model was asked, for the page to say.
            Default: ""

    Raises:
        ValueError: if there are not as many images as pictures in the attribution, or it is not known which of their
            tokens stand for which places.
    """

    def __init__(
        self, attribution: AnswerAttribution, images: Pixels | Sequence[Pixels] = (), prompt: str = ""
    ) -> None:
        pictures = list(images) if isinstance(images, Sequence) else [images]
        if attribution.pictures is None:
            raise ValueError(
                "attribution must tell which image token stands for which place. Got a model's that does not."
            )
        if len(pictures) != len(attribution.pictures):
            raise ValueError(
                f"images must be the {len(attribution.pictures)} of the attribution. Got {len(pictures)} instead."
            )
        words = attribution.words()
        shares = {name: part.tolist() for name, part in words.shares().items()}
        content = {
            "words": words.tokens,
            "shares": {name: [round(share, 3) for share in part] for name, part in shares.items()},
            "pictures": [_mapped(words, number, image) for number, image in enumerate(pictures)],
        }
        self.html = _page(prompt, attribution.contrast, content)

    def save(self, path: str | Path) -> None:
        """Writes the page as a file, whole or not at all.

        Raises:
            OSError: if it cannot be written; the message names the path.
        """
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        """For Jupyter: in a frame, so that page and notebook do not mix."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" title="What fed each word" sandbox="allow-scripts" '
            'style="width: 100%; height: 640px; border: 0"></iframe>'
        )


def _mapped(words: AnswerAttribution, number: int, image: Pixels) -> dict[str, Any]:
    """A picture as the page takes it: its file, its size in pixels, and each word's relevance of its patches."""
    relevance = words.picture_relevance(number).double().cpu().numpy()
    photo = photo_of(image)
    photo.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    rounded = [[float(f"{value:.{_DIGITS}g}") for value in word.ravel()] for word in relevance]
    rows, columns = relevance.shape[1:]
    return {"source": _data(photo), "width": photo.width, "height": photo.height, "rows": rows, "columns": columns} | {
        "relevance": rounded
    }


def _data(photo: Image.Image) -> str:
    """As part of a page: the smaller of a PNG and, for photos, a JPEG."""
    files_of = {}
    for kind, options in {"png": {}, "jpeg": {"quality": 90}}.items():
        photo.save(buffer := BytesIO(), kind, **options)
        files_of[kind] = buffer.getvalue()
    kind = min(files_of, key=lambda name: len(files_of[name]))
    return f"data:image/{kind};base64,{base64.b64encode(files_of[kind]).decode()}"


def _page(prompt: str, contrast: str | None, content: dict[str, Any]) -> str:
    """The page around its content, which no text in it can end."""
    template = files(__package__).joinpath("answer_page.html").read_text(encoding="utf-8")
    parts = {
        "PROMPT": escape(prompt),
        "RATHER": "" if contrast is None else escape(f", rather than “{contrast}”"),
        "SIGNS": escape(SIGNS),
        "FOR": f"rgb{FOR}",
        "AGAINST": f"rgb{AGAINST}",
        "CONTENT": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub("@([A-Z]+)@", lambda place: parts[place[1]], template)  # once, as texts may hold such words as well
