"""The papers of methods as BibTeX, and captions of figures that cite them."""

import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.resources import files
from inspect import getdoc

from captum_gmar.attr.catalogue import METHODS

ARXIV = re.compile(r"arxiv\.org/abs/(\d+\.\d+)")
ENTRY = re.compile(r"@\w+\{(\w+),.*?eprint = \{([^}]+)\}.*?\n\}", re.DOTALL)
FOR_LATEX = re.compile(r"(?<!\\)([%&#$_])")


@cache
def read_papers() -> dict[str, tuple[str, str]]:
    """Return the key and the BibTeX entry of each paper, by its arXiv number."""
    text = files(__package__).joinpath("references.bib").read_text(encoding="utf-8")
    return {match[2]: (match[1], match[0]) for match in ENTRY.finditer(text)}


def papers_of(method: str) -> list[str]:
    """Return the arXiv numbers of the papers that the docstring of a method names."""
    module, _, name = METHODS[method].home.partition(":")
    docstring = getdoc(getattr(import_module(f"captum_gmar.{module}"), name)) or ""
    return list(dict.fromkeys(ARXIV.findall(docstring)))


def cite_methods(methods: Iterable[str], caption: str) -> str:
    """Return the BibTeX of methods' papers, below the caption of their figure, which is a comment in LaTeX.

    ``caption`` follows the methods' names: number of images, removal, interval. Controls have no paper.
    """
    papers, cited, entries = read_papers(), [], dict[str, str]()
    for method in methods:
        known = [papers[number] for number in papers_of(method) if number in papers] if method in METHODS else []
        entries |= known
        cited.append(f"{method} \\cite{{{','.join(key for key, _ in known)}}}" if known else method)
    line = f"Caption: Heatmaps of {', '.join(cited)}. " + FOR_LATEX.sub(r"\\\1", caption)
    return "\n\n".join([line.replace("@", " at "), *entries.values()]) + "\n"  # which begins an entry
