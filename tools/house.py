"""Measures the house: its rooms, floors and imports, its lines, bodies, docstrings and names.

``python tools/house.py`` measures the working tree, ``--rev REV`` a commit, and several ``--rev`` stand side by side::

    python tools/house.py --rev e9bbd42 --rev HEAD --list

A room is a file or a folder at the top of the package, its `__init__.py` too. `benchmarks` stands on them: its arrows
count, and it does not. An arrow leads from a room to one that it imports, anywhere in a file. A room stands one floor
above the highest room that it imports; rooms in a circle have no order, so each of them adds a floor. The chain of
files and the files behind a method follow the imports that run when a file is loaded, and leave `__init__.py` out.
Nothing but Python's own library is needed.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tokenize
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

PACKAGE = "captum_gmar"
BESIDE_THE_PACKAGE = ("benchmarks",)
CHECKOUT = Path(__file__).resolve().parents[1]
# Which room stands on which floor, from the ground up. `tests/test_layout.py` holds the package to it: a room imports
# rooms of lower floors alone.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__init__", "engine", "files", "metrics"),
    ("ablation", "attr", "classifier", "visualization", "vlm"),
    ("demo", "evaluation", "inspection"),
    ("cli",),
    ("__main__", "benchmarks"),
)
LARGE_BODY = 40  # lines
# Modules of methods whose files behind them are counted.
METHODS = ("attr.gmar", "attr.rollout", "attr.token_evidence", "attr.published")
# A docstring that begins with one of these words begins with a clause and not with what the function does.
CLAUSES = ("As", "At", "By", "For", "From", "How", "In", "Of", "On", "So", "That", "To")
CLAUSES += ("What", "Where", "Whether", "Which", "Who", "With")
# A variable that begins with one of these words says where something is and not what it is.
PREPOSITIONS = ("above", "after", "as", "at", "before", "behind", "below", "beside", "between", "beyond", "by", "for")
PREPOSITIONS += ("from", "in", "into", "of", "on", "to", "with", "within", "without")


@dataclass(frozen=True)
class Module:
    """A file of the package: its path below the package, its text and what Python reads in it."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """Return the file or folder at the top of the package, or the folder beside it."""
        parts = self.path.with_suffix("").parts
        return parts[1] if self.is_of_the_package else parts[0]

    @property
    def name(self) -> str:
        """Return the name by which a file is imported."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    @property
    def is_of_the_package(self) -> bool:
        return self.path.parts[0] == PACKAGE


def read_modules(rev: str | None = None, checkout: Path = CHECKOUT) -> list[Module]:
    """Read every file of the package and beside it, of a commit or of the working tree."""
    texts = _texts_of_tree(checkout) if rev is None else _texts_of_commit(rev, checkout)
    return [Module(path, text, ast.parse(text)) for path, text in sorted(texts.items())]


def _texts_of_tree(checkout: Path) -> dict[Path, str]:
    paths = [path for folder in (PACKAGE, *BESIDE_THE_PACKAGE) for path in (checkout / folder).rglob("*.py")]
    return {path.relative_to(checkout): path.read_text(encoding="utf-8") for path in paths}


def _texts_of_commit(rev: str, checkout: Path) -> dict[Path, str]:
    command = ["git", "-C", str(checkout), "archive", rev, PACKAGE, *BESIDE_THE_PACKAGE]
    archived = io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)
    with tarfile.open(fileobj=archived) as archive:
        files = {Path(name): archive.extractfile(name) for name in archive.getnames() if name.endswith(".py")}
        return {path: file.read().decode() for path, file in files.items() if file is not None}


def imports(module: Module) -> Iterator[tuple[str, str | None, bool]]:
    """Give what a module imports of the package: from where, which name, and whether as the module itself is loaded."""
    when_loaded = set(_nodes_when_loaded(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names: list[tuple[str, str | None]] = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(_source(node, module), alias.name) for alias in node.names]
        else:
            continue
        for source, name in names:
            if source.split(".")[0] == PACKAGE:
                yield source, name, node in when_loaded


def _source(node: ast.ImportFrom, module: Module) -> str:
    """Give the module that names are imported from, also where it is written relative to this one."""
    folder = module.path.with_suffix("").parts[: -node.level] if node.level else ()
    return ".".join((*folder, *filter(None, [node.module])))


def _nodes_when_loaded(node: ast.AST) -> Iterator[ast.AST]:
    """Give all nodes that run when a module is loaded: none in a function, none for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes_when_loaded(child)


def arrows(modules: Sequence[Module], *, lazy: bool = True) -> dict[tuple[str, str], list[str]]:
    """Give every pair of rooms of which the first imports the second, each with the modules that do."""
    rooms = {module.room for module in modules}
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in modules:
        for source, name, when_loaded in imports(module):
            parts = source.split(".")[1:] or [name or ""]
            room = parts[0] if parts[0] in rooms else "__init__"
            if room != module.room and (lazy or when_loaded):
                pairs[module.room, room].append(module.name)
    return dict(pairs)


def file_arrows(modules: Sequence[Module]) -> set[tuple[str, str]]:
    """Give every pair of modules of which the first imports the second."""
    names = {module.name for module in modules}
    pairs = ((module.name, _imported(source, name, names)) for module in modules for source, name, _ in imports(module))
    return {(source, target) for source, target in pairs if source != target}


def _imported(source: str, name: str | None, names: set[str]) -> str:
    return f"{source}.{name}" if f"{source}.{name}" in names else source


def circles(nodes: Iterable[str], pairs: Collection[tuple[str, str]]) -> list[frozenset[str]]:
    """Give the groups of rooms, or of modules, that import one another in a circle."""
    reached = {node: _reached(node, pairs) for node in nodes}
    groups = {frozenset(other for other in reached[node] if node in reached[other]) for node in reached}
    return sorted((group for group in groups if len(group) > 1), key=sorted)


def _reached(node: str, pairs: Collection[tuple[str, str]]) -> set[str]:
    """Give all that a room imports, itself or through others, and itself."""
    reached, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        new = {target for source, target in pairs if source == current} - reached
        reached |= new
        waiting += new
    return reached


def floors(rooms: Iterable[str], pairs: Collection[tuple[str, str]]) -> dict[str, int]:
    """Give the floor of each room, counted from 1."""
    rooms = set(rooms)
    group_of = {room: frozenset({room}) for room in rooms}
    for circle in circles(rooms, pairs):
        group_of.update(dict.fromkeys(circle, circle))
    heights: dict[frozenset[str], int] = {}

    def height(group: frozenset[str]) -> int:
        if group not in heights:
            below = {group_of[target] for source, target in pairs if source in group} - {group}
            heights[group] = len(group) + max(map(height, below), default=0)
        return heights[group]

    return {room: height(group_of[room]) for room in rooms}


def file_arrows_when_loaded(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Give the files that each file imports as it is loaded, `__init__.py` left out."""
    names = {module.name for module in modules if module.path.name != "__init__.py"}
    return {
        module.name: {_imported(source, name, names) for source, name, when_loaded in imports(module) if when_loaded}
        & names - {module.name}
        for module in modules
    }


def longest_chain(arrows: Mapping[str, Collection[str]]) -> list[str]:
    """Give the files of the longest way along arrows without a circle, from the top."""
    chains: dict[str, list[str]] = {}

    def chain(file: str) -> list[str]:
        if file not in chains:
            chains[file] = [file, *max(map(chain, sorted(arrows[file])), key=len, default=[])]
        return chains[file]

    return max(map(chain, sorted(arrows)), key=len, default=[])


def files_behind(file: str, arrows: Mapping[str, Collection[str]]) -> set[str]:
    """Give a file and all that are loaded with it."""
    return _reached(file, {(source, target) for source, targets in arrows.items() for target in targets})


def inside(folder: str, modules: Sequence[Module]) -> tuple[int, int]:
    """Count the files and folders in a folder, and the floors that they stand on by all their imports."""
    prefix = f"{folder}."
    rooms = {module.name.removeprefix(prefix).split(".")[0] for module in modules if module.name.startswith(prefix)}
    pairs = {
        (a.removeprefix(prefix).split(".")[0], b.removeprefix(prefix).split(".")[0])
        for a, b in file_arrows(modules)
        if a.startswith(prefix) and b.startswith(prefix)
    }
    return len(rooms), max(floors(rooms, {(a, b) for a, b in pairs if a != b}).values(), default=0)


def upward(pairs: Mapping[tuple[str, str], Sequence[str]]) -> dict[tuple[str, str], Sequence[str]]:
    """Give the arrows that the plan does not have: up, or along a floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    top = len(FLOORS)
    return {
        (source, target): modules
        for (source, target), modules in sorted(pairs.items())
        if floor.get(source, top) <= floor.get(target, top)
    }


Function = ast.FunctionDef | ast.AsyncFunctionDef


def has_docstring(node: ast.Module | ast.ClassDef | Function) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def functions(modules: Iterable[Module]) -> list[Function]:
    """Give every function and method, those inside others too."""
    return [node for module in modules for node in ast.walk(module.tree) if isinstance(node, Function)]


def body_lines(function: Function) -> int:
    """Count the lines of a function below its head and its docstring."""
    statements = function.body[has_docstring(function) :]
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def begins_with_a_clause(function: Function) -> bool:
    """Return whether a docstring begins with a relative clause or a preposition."""
    words = (ast.get_docstring(function) or "").split(maxsplit=1)
    return bool(words) and words[0].rstrip(",:") in CLAUSES


def docstring_lines(module: Module) -> set[int]:
    """Give the numbers of all lines that belong to docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(module.tree) if isinstance(node, documented) and has_docstring(node)]
    return {line for node in first for line in range(node.lineno, (node.end_lineno or 0) + 1)}


def code_lines(module: Module) -> set[int]:
    """Give the numbers of all lines that hold code: no comments, empty lines or docstrings."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    lines = {line for token in tokens if token.type not in layout for line in range(token.start[0], token.end[0] + 1)}
    return lines - docstring_lines(module)


def defined_names(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Give every name that modules define at their top, and in which of them."""
    homes: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for node in module.tree.body:
            for name in _names_of(node):
                if not name.startswith("__"):
                    homes[name].add(module.name)
    return homes


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | Function):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def prepositions(modules: Iterable[Module]) -> Counter[str]:
    """Count how often variables and parameters bear a name that begins with a preposition."""
    nodes = [node for module in modules for node in ast.walk(module.tree)]
    named = {node.name for node in nodes if isinstance(node, ast.ClassDef | Function)}
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.arg for node in nodes if isinstance(node, ast.arg)]
    return Counter(name for name in names if name not in named and name.strip("_").split("_")[0] in PREPOSITIONS)


def without_tests(modules: Iterable[Module], tests: Path = CHECKOUT / "tests") -> list[str]:
    """Give the modules of the package that have no file of tests of their name."""
    tested = {path.stem.removeprefix("test_") for path in tests.rglob("test_*.py")}
    candidates = filter(_may_have_tests, modules)
    return [module.name for module in candidates if module.path.stem.lstrip("_") not in tested]


def _may_have_tests(module: Module) -> bool:
    return module.path.stem not in ("__init__", "__main__")


def measure(modules: Sequence[Module]) -> dict[str, str | list[str]]:
    """Return all figures of one state of the package, and the lists behind them."""
    package = [module for module in modules if module.is_of_the_package]
    return {**_measure_rooms(modules, package), **_measure_text(package)}


def _measure_rooms(modules: Sequence[Module], package: Sequence[Module]) -> dict[str, str | list[str]]:
    rooms, pairs = {module.room for module in modules}, arrows(modules)
    floor_of, up = floors(rooms, pairs), upward(pairs)
    file_circles = circles({module.name for module in modules}, file_arrows(modules))
    loaded = file_arrows_when_loaded(package)
    chain = longest_chain(loaded)
    behind = {name: files_behind(f"{PACKAGE}.{name}", loaded) for name in METHODS if f"{PACKAGE}.{name}" in loaded}
    return {
        "rooms": str(len({module.room for module in package})),
        "floors": str(max(floor_of.values())),
        "arrows between rooms": str(len(pairs)),
        "circles of rooms": str(len(circles(rooms, pairs))),
        "circles of files": str(len(file_circles)),
        "longest chain of files": str(len(chain)),
        **{f"files behind {name}": str(len(files)) for name, files in behind.items()},
        "arrows up or aside": str(len(up)) if set(FLOORS[0]) <= rooms else "no plan",
        "inside each folder: files and folders, floors": [
            "{}: {}, {}".format(module.name, *inside(module.name, package))
            for module in package
            if module.path.name == "__init__.py"
        ],
        "the longest chain": chain,
        "the circles": [" ".join(sorted(circle)) for circle in file_circles],
        "the arrows up or aside": [f"{a} -> {b}: {', '.join(sorted(set(by)))}" for (a, b), by in up.items()],
    }


def _measure_text(package: Sequence[Module]) -> dict[str, str | list[str]]:
    bodies = [body_lines(function) for function in functions(package)]
    documented = [function for function in functions(package) if has_docstring(function)]
    places, untested = prepositions(package), without_tests(package)
    return {
        "files": str(len(package)),
        "lines": f"{sum(len(module.text.splitlines()) for module in package):,}",
        "of them code": f"{sum(len(code_lines(module)) for module in package):,}",
        "of them docstrings": f"{sum(len(docstring_lines(module)) for module in package):,}",
        "functions and methods": str(len(bodies)),
        "body: median, 90 %, largest": f"{median(bodies):g}, {quantiles(bodies, n=10)[-1]:.0f}, {max(bodies)}",
        f"bodies over {LARGE_BODY} lines": str(sum(lines > LARGE_BODY for lines in bodies)),
        "docstrings that begin with a clause": f"{sum(map(begins_with_a_clause, documented)) / len(documented):.1%}",
        "modules with tests of their name": f"{1 - len(untested) / sum(map(_may_have_tests, package)):.0%}",
        "variables that begin with a preposition": str(sum(places.values())),
        "the bodies": [
            f"{module.name}.{function.name}: {body_lines(function)}"
            for module in package
            for function in functions([module])
            if body_lines(function) > LARGE_BODY
        ],
        "the modules without tests": untested,
        "the variables": [f"{name}: {uses}" for name, uses in places.most_common()],
    }


def table(states: Mapping[str, Mapping[str, str | list[str]]]) -> str:
    """Write the figures of one or several states as lines, one column each."""
    names = [name for name, figure in next(iter(states.values())).items() if isinstance(figure, str)]
    first = max(map(len, names))
    rows = [("", *states)] + [(name, *(str(state.get(name, "")) for state in states.values())) for name in names]
    return "\n".join(row[0].ljust(first) + "".join(cell.rjust(16) for cell in row[1:]) for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python tools/house.py", description="Measure the package's layout.")
    add = parser.add_argument
    add("--rev", action="append", help="a commit; repeat it to compare several (default: the working tree)")
    add("--list", action="store_true", help="also list, of the last one, what stands behind the figures")
    options = parser.parse_args(arguments)
    states = {rev or "working tree": measure(read_modules(rev)) for rev in options.rev or [None]}
    print(table(states))
    for title, lines in list(states.values())[-1].items():
        if options.list and isinstance(lines, list):
            print(f"\n{title}", *lines, sep="\n  ")


if __name__ == "__main__":
    main()
