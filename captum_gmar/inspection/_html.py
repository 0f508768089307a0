"""Pages of HTML that hold everything that they need, so they work without a server: from a file, and in a saved notebook."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from io import BytesIO
from typing import Any

from PIL import Image

from captum_gmar.visualization._heatmap import OPACITY
from captum_gmar.visualization._style import AGAINST, FOR, SIGNS


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
    page = files(__package__).joinpath(template).read_text(encoding="utf-8")
    return re.sub("@([A-Z]+)@", lambda place: parts[place[1]], page)  # once, as texts may hold such words as well


def frame_page(page: str, title: str) -> str:
    """Return a page in a frame for Jupyter, so that page and notebook do not mix."""
    return (
        f'<iframe srcdoc="{escape(page)}" title="{escape(title)}" sandbox="allow-scripts" '
        'style="width: 100%; height: 640px; border: 0"></iframe>'
    )
