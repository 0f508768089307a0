"""Sphinx builds the site by this: ``python -m sphinx -W --keep-going docs docs/_build``, without a network.

What pages take from the code, ``tools/site`` writes first; ``CAPTUM_GMAR_DOCS=draft`` leaves pictures and notebooks as
they are. ``CAPTUM_GMAR_DOCS=online`` asks torch, captum and Python for all their names; else a few lie beside.
"""

import os
import sys
import tomllib
import zlib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH", "")]))
os.environ.pop("CAPTUM_GMAR_MODEL", None)  # notebooks take the built-in model
os.environ.pop("MPLBACKEND", None)  # and draw in the page
os.environ.setdefault("OMP_NUM_THREADS", "1")
MODE = os.environ.get("CAPTUM_GMAR_DOCS", "")

from tools.site.__main__ import write_all  # noqa: E402

PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
import captum_gmar  # noqa: E402

project = PROJECT["name"]
author = copyright = PROJECT["authors"][0]["name"]
version = release = captum_gmar.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "tools.site.formulas",
    "tools.site.tutorials",
]
templates_path = ["templates"]
exclude_patterns = ["_build", "errors-by-symptom.md", "generated", "inventories", "jupyter_execute", "static"]
exclude_patterns += templates_path

myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off" if MODE == "draft" else "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "warn"
nb_render_markdown_format = "myst"  # which has tables
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]  # which needs a kernel

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autosummary_generate = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

bibtex_bibfiles = ["../captum_gmar/attr/references.bib"]
bibtex_default_style = "unsrt"
bibtex_reference_style = "author_year"

SITES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "captum": "https://captum.ai/api/",
    "transformers": "https://huggingface.co/docs/transformers/main/en/",
}


def _inventory(name: str) -> str:
    """What we name of another site, as its inventory would be: ``inventories/NAME.txt``, packed."""
    lines = (DOCS / "inventories" / f"{name}.txt").read_text(encoding="utf-8").encode()
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# The remainder is compressed using zlib.\n"
    path = DOCS / "generated" / f"{name}.inv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head.encode() + zlib.compress(lines))
    return str(path)


intersphinx_mapping = {
    name: (address, None if MODE == "online" else _inventory(name)) for name, address in SITES.items()
}

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
CARD = os.environ.get("CAPTUM_GMAR_SITE", "") + "_images/hero.webp"  # cards need a whole address, which the host knows
myst_html_meta = {"property=og:title": project, "property=og:type": "website", "property=og:image": CARD}
myst_html_meta |= {"property=og:description": PROJECT["description"], "name=twitter:card": "summary_large_image"}
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#005a8f", "color-brand-content": "#005a8f"},
    "dark_css_variables": {"color-brand-primary": "#6fc3f5", "color-brand-content": "#6fc3f5"},
}

write_all(with_pictures=MODE != "draft" or not (DOCS / "pictures").is_dir())
