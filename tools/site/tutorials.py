"""The notebooks, which the site executes and shows as its tutorials, beside its pages, where Sphinx looks."""

import shutil

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
