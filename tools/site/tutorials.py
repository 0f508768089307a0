"""The notebooks, which the site executes and shows as its tutorials, beside its pages, where Sphinx looks."""

import shutil
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from tools.site.facts import DOCS

NOTEBOOKS = DOCS.parent / "notebooks"


def copy_tutorials() -> None:
    """All of them, and none that is gone."""
    folder = DOCS / "tutorials"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        shutil.copyfile(path, folder / path.name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's hook."""
    app.connect("doctree-resolved", _warn_without_pictures)
    app.connect("env-updated", _drop_widgets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _warn_without_pictures(app: Sphinx, page: nodes.document, name: str) -> None:
    is_executed = name.startswith("tutorials/") and app.config.nb_execution_mode != "off"
    if is_executed and not list(page.findall(nodes.image)):
        logging.getLogger(__name__).warning("%s draws nothing", name, location=name)


def _drop_widgets(app: Sphinx, env: Any) -> None:
    """Remove the state of widgets, which pages would load with scripts from elsewhere and which does nothing there."""
    for page in env.nb_metadata.values():
        page.pop("js_files", None)
