"""The API's pages, of the names in ``captum_gmar/__init__.pyi`` and of the submodules that have more."""

from captum_gmar import _HOMES
from captum_gmar.attr.catalogue import METHODS
from tools.site.facts import DOCS, page_of, write_page

SUBMODULES = ("metrics", "ablation", "demo", "classifier", "visualization")
RESULTS = (
    *("attr._base.TargetMaps", "attr.relevance_flow.RelevanceFlow", "engine.attention.record.AttentionRecord"),
    *("inspection.explain_text.TextExplanation", "vlm.attribution.AnswerAttribution", "classifier.detection.Detection"),
)
INDEX = """# API

`from captum_gmar import …` has the names that most need, and loads them when they are first used. Submodules have the
rest.

## Methods

{methods}

have the calls of `AttentionAttribution`, below.

## Functions and records

```{{eval-rst}}
.. currentmodule:: captum_gmar

.. autosummary::
   :toctree: generated
   :template: autosummary/entry.rst
   :nosignatures:

{others}
```

## The calls of every method, and results

```{{eval-rst}}
.. autoclass:: captum_gmar.attr._base.AttentionAttribution
   :members:
   :exclude-members: get_name, attribute_future

{results}
```

## Submodules

```{{toctree}}
:maxdepth: 1

{submodules}
```
"""


def write_api() -> None:
    """``docs/api/``: an index, and a page for each submodule; Sphinx itself makes one for each function."""
    pages = {page_of(entry) for entry in METHODS.values() if entry.is_ours}
    methods = [name for name in _HOMES if name in pages]
    others = [name for name in _HOMES if name not in pages]
    text = INDEX.format(
        methods=",\n".join(f"[`{name}`](/methods/{name}.md)" for name in methods),
        others="\n".join(f"   {name}" for name in others),
        results="\n\n".join(f".. autoclass:: captum_gmar.{name}\n   :members:" for name in RESULTS),
        submodules="\n".join(SUBMODULES),
    )
    write_page(DOCS / "api" / "index.md", text)
    for name in SUBMODULES:
        directive = f"```{{eval-rst}}\n.. automodule:: captum_gmar.{name}\n   :members:\n```\n"
        write_page(DOCS / "api" / f"{name}.md", f"# captum_gmar.{name}\n\n{directive}")
