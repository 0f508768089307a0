"""Pages of HTML that hold all that they need: they work without a server, from a file and in a saved notebook."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from torch import nn

from captum_gmar.engine.models.patch_grid import config_of
from captum_gmar.files.writing import write_text
from captum_gmar.visualization._heatmap import OPACITY, Array
from captum_gmar.visualization._style import AGAINST, FOR, SIGNS

LARGEST_SIDE = 640  # pixels of a photo in a page


def shrink(photo: Image.Image) -> Image.Image:
    """Return the photo no larger than a page shows it."""
    photo = photo.copy()
    photo.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BICUBIC)
    return photo


def model_name(model: nn.Module) -> str:
    """Return the name of a model on its hub or the name of its folder; of a model without either, its class."""
    name = PurePath(str(getattr(config_of(model), "name_or_path", ""))).name
    return type(model).__name__ if name in ("", "None") else name


def round_values(relevance: Array, digits: int) -> list[float]:
    """Return relevance of patches, row by row, in so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in relevance.ravel()]


def image_data(image: Image.Image) -> str:
    """Return an image as part of a page: the smaller of a PNG and a JPEG."""
    encoded = {}
    for kind, options in {"png": {}, "jpeg": {"quality": 80}}.items():
        image.save(buffer := BytesIO(), kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = min(encoded, key=lambda name: len(encoded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def fill_page(template: str, content: Any, texts: Mapping[str, str]) -> str:
    """Return a page of this room around its content and texts, which nothing in them can end."""
    parts = {name: escape(text) for name, text in {**texts, "SIGNS": SIGNS}.items()}
    parts |= {"FOR": f"rgb{FOR}", "AGAINST": f"rgb{AGAINST}", "OPACITY": str(OPACITY)}
    parts["CONTENT"] = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    page = _read_text(template).replace("@STYLE@", _read_text("page.css")).replace("@SCRIPT@", _read_text("page.js"))
    return re.sub("@([A-Z]+)@", lambda place: parts[place[1]], page)  # once, as texts may hold such words as well


def _read_text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class Page:
    """A page of HTML, which Jupyter shows."""

    html: str
    title: str

    def save(self, path: str | Path) -> None:
        """Write the page as a file, whole or not at all.

        Raises:
            OSError: if it cannot be written; the message names the path.
        """
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        """Return the page in a frame, so that page and notebook do not mix.

        A viewer that takes frames away, as Jupyter does in notebooks that are not trusted, keeps the text in the frame.
        """
        page, title = escape(self.html), escape(self.title)
        return (
            f'<iframe srcdoc="{page}" title="{title}" sandbox="allow-scripts" '
            f'style="width: 100%; height: 720px; border: 0">{title}: trust this notebook to see the page.</iframe>'
        )
