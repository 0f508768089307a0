"""The matrix of methods, and a page for each of their classes."""

from collections.abc import Iterable
from itertools import groupby
from math import inf

from captum_gmar import _HOMES
from captum_gmar.attr.catalogue import NEARLY_ANY_CLASS, RECOMMENDED
from captum_gmar.attr.papers import read_papers
from captum_gmar.files.markdown import table
from captum_gmar.visualization._style import number_text
from tools.site.facts import DOCS, MARKS, OUR_OWN, Fact, class_of, write_page

HEADER = ("method", "passes", "sign", "sees the class", "photos", "scenes", "cost", "models", "source")
FORM = ".2f"  # of numbers


def write_matrix(facts: list[Fact]) -> None:
    """Write a row for each method, the most faithful on photos first, which ``which-method.md`` includes."""
    rows = sorted(facts, key=_by_faithfulness)
    write_page(DOCS / "generated" / "matrix.md", table(HEADER, map(_matrix_row, rows)) + "\n")


def write_method_pages(facts: list[Fact]) -> None:
    """Write a page for each class, with all its names in the catalogue; Captum's methods share one."""
    folder = DOCS / "methods"
    grouped = [(page, list(group)) for page, group in groupby(sorted(facts, key=_by_page), _by_page)]
    for page, group in grouped:
        write_page(folder / f"{page}.md", _page(group))
    order = dict.fromkeys(fact.page for fact in facts)
    write_page(folder / "index.md", _index(order))


def _by_page(fact: Fact) -> str:
    return fact.page


def _by_faithfulness(fact: Fact) -> tuple[float, ...]:
    """Return numbers that are smaller for more faithful methods, and largest for those that were not measured."""
    return tuple(inf if mean is None else -mean for mean in fact.faithfulness)


def _matrix_row(fact: Fact) -> list[str]:
    entry = fact.entry
    forward, backward = fact.passes
    photos, scenes = (_number(value) for value in fact.faithfulness)
    cost = f"{_number(fact.cost[0])} {MARKS[fact.cost[1]]}".rstrip() if fact.cost else "–"
    return [
        f"[{entry.name}](/methods/{fact.page}.md)" + ", recommended" * (entry.name == RECOMMENDED),
        f"{forward} + {backward}",
        "±" if fact.is_signed else "+",
        "hardly" if entry.caveat == NEARLY_ANY_CLASS else "yes" if entry.reads_class else "no",
        *(photos, scenes, cost, fact.models),
        _cite(fact.source) if fact.source else "our own" if entry.name in OUR_OWN else "–",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else number_text(value, FORM)


def _cite(number: str) -> str:
    paper = read_papers().get(number)
    return f"{{cite}}`{paper[0]}`" if paper else f"[{number}](https://arxiv.org/abs/{number})"


def _page(facts: list[Fact]) -> str:
    title = class_of(facts[0].entry).get_name() if facts[0].entry.is_ours else "Captum's methods on the same model"
    names = ", ".join(f"`{fact.entry.name}`" for fact in facts)
    pictures = [_picture(fact) for fact in facts]
    classes = dict.fromkeys(fact.entry.home.partition(":")[::2] for fact in facts)
    documented = [_autoclass(module, name) for module, name in classes]
    matrix = table(HEADER, [_matrix_row(fact) for fact in facts])
    return "\n\n".join(
        [
            f"# {title}",
            f"On the command line, in `list_methods()` and in tables: {names}.",
            *pictures,
            "The scene has two objects, and each map explains the class of one. Each map has its own scale.",
            _limitations(facts),
            matrix,
            "[Which method?](/which-method.md) explains the columns.",
            *documented,
        ]
    )


def _limitations(facts: list[Fact]) -> str:
    """Return each limitation once, with the methods that have it where these differ."""
    found: dict[str, list[str]] = {}
    for fact in facts:
        found.setdefault(fact.entry.caveat, []).append(f"`{fact.entry.name}`")
    if len(found) == 1:
        return f"**Limitation.** {next(iter(found))}"
    return "\n".join(f"- {', '.join(names)}: {caveat}" for caveat, names in found.items())


def _picture(fact: Fact) -> str:
    what = f"the map of {fact.entry.name} for each of two objects' classes, beside the scene"
    return f"`{fact.entry.name}`:\n\n" + picture(f"methods/{fact.entry.name}", what)


def picture(name: str, alt: str) -> str:
    """Return a picture in both of the site's colours. One as wide as the page links to itself at its own size."""
    shown = (
        f"```{{image}} /pictures/{name}-{mode}.png\n:alt: {alt}\n:class: only-{mode}\n:width: 100%\n```"
        for mode in ("light", "dark")
    )
    return "\n\n".join(shown)


def _autoclass(module: str, name: str) -> str:
    home = "captum_gmar" if name in _HOMES else f"captum_gmar.{module}"
    return f"```{{eval-rst}}\n.. autoclass:: {home}.{name}\n   :members:\n   :exclude-members: get_name\n```"


def _index(pages: Iterable[str]) -> str:
    listed = "\n".join(pages)
    return (
        "# Methods\n\nEach page has the method's pictures, formula, limitations and source. "
        "[Which method?](/which-method.md) compares all methods in one table.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
