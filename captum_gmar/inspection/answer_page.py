"""A page of HTML of an answer: touch a word to see what of the pictures fed it, a patch to see the words that it fed.

It holds everything that it needs, so it works without a server: from a file, and in a saved notebook.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_gmar.files.writing import write_text
from captum_gmar.inspection._html import fill_page, frame_page, image_data, round_values, shrink
from captum_gmar.visualization._heatmap import Pixels, photo_of
from captum_gmar.vlm.attribution import AnswerAttribution


class AnswerPage:
    """An answer, each word with its map, as a page of HTML; in Jupyter the last line of a cell shows it.

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
            "pictures": [_word_maps(words, number, image) for number, image in enumerate(pictures)],
        }
        rather = "" if attribution.contrast is None else f", rather than “{attribution.contrast}”"
        self.html = fill_page("answer_page.html", content, {"PROMPT": prompt, "RATHER": rather})

    def save(self, path: str | Path) -> None:
        """Write the page as a file, whole or not at all.

        Raises:
            OSError: if it cannot be written; the message names the path.
        """
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        return frame_page(self.html, "What fed each word")


def _word_maps(words: AnswerAttribution, number: int, image: Pixels) -> dict[str, Any]:
    """Return a picture as the page takes it: its file, its size in pixels, and each word's relevance of its patches."""
    relevance = words.picture_relevance(number).double().cpu().numpy()
    photo = shrink(photo_of(image))
    size = {"width": photo.width, "height": photo.height, "rows": relevance.shape[1], "columns": relevance.shape[2]}
    return {"source": image_data(photo), **size, "relevance": [round_values(word, 4) for word in relevance]}
