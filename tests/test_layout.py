"""Imports go down, from the command line to the engine: never up, nor in circles. `tools/house.py` holds the plan."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tools.house", reason="the tools are not installed; they stand in a checkout")

from tools.house import (
    FLOORS,
    Module,
    arrows,
    begins_with_a_clause,
    circles,
    defined_names,
    file_arrows,
    file_arrows_when_loaded,
    files_behind,
    floors,
    functions,
    has_docstring,
    imports,
    inside,
    longest_chain,
    prepositions,
    read_modules,
    upward,
)


@pytest.fixture(scope="module")
def modules():
    return read_modules()


def made_of(**texts):
    """Modules of the package in files of these names, such as ``engine__rule`` for engine/rule.py."""
    paths = {name: Path("captum_gmar", *f"{name}.py".split("__")) for name in texts}
    return [Module(paths[name], text, ast.parse(text)) for name, text in texts.items()]


def test_every_room_stands_in_the_plan(modules):
    assert {module.room for module in modules} == {room for floor in FLOORS for room in floor}
    assert len({module.room for module in modules if module.is_of_the_package}) <= 14


def test_no_room_imports_one_that_is_not_below(modules):
    assert upward(arrows(modules)) == {}


def test_no_files_import_one_another_in_a_circle(modules):
    assert circles({module.name for module in modules}, file_arrows(modules)) == []


def test_no_folders_within_a_room_import_one_another_in_a_circle(modules):
    folder_of = {module.name: "/".join(module.path.parts[:-1]) for module in modules if len(module.path.parts) > 3}
    within = {(folder_of[a], folder_of[b]) for a, b in file_arrows(modules) if {a, b} <= folder_of.keys()}
    assert circles(folder_of.values(), {(a, b) for a, b in within if a != b}) == []


def test_a_name_stands_for_one_thing(modules):
    """But what commands have in common, which are modules of one form."""
    homes = defined_names(module for module in modules if module.is_of_the_package)
    of_commands = {f"captum_gmar.cli.{name}" for name in ("app", "audit", "compare", "evaluate", "explain", "heads")}
    assert {name: where for name, where in homes.items() if len(where) > 1 and where - of_commands} == {}


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("import captum_gmar.cli.main", {("engine", "cli")}),
        ("from captum_gmar import cli", {("engine", "cli")}),
        ("from captum_gmar.cli.main import main", {("engine", "cli")}),
        ("def late():\n    from captum_gmar.cli import main", {("engine", "cli")}),
        ("from ..cli import main", {("engine", "cli")}),
        ("from captum_gmar import __version__", {("engine", "__init__")}),
        ("from captum_gmar.engine import explain as run\nimport captum", set()),
    ],
)
def test_imports_are_seen_wherever_and_however_they_are_written(text, pairs):
    house = made_of(engine__rule=text, cli__main="")
    assert set(arrows(house)) == pairs
    assert set(upward(arrows(house))) == pairs


def test_imports_of_a_function_or_for_the_type_checker_do_not_run_as_the_module_is_loaded():
    text = "if TYPE_CHECKING:\n    from captum_gmar import cli\ndef late():\n    from captum_gmar import attr\n"
    (module,) = made_of(demo=text + "class Now:\n    from captum_gmar import engine\n")
    assert [(name, when_loaded) for _, name, when_loaded in imports(module)] == [
        ("cli", False),
        ("attr", False),
        ("engine", True),
    ]


def test_floors_and_circles():
    """a stands on b and c, which go in a circle and so have no order, on d: four floors."""
    pairs = {("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}
    assert circles("abcd", pairs) == [frozenset("bc")]
    assert floors("abcd", pairs) == {"a": 4, "b": 3, "c": 3, "d": 1}


def test_chain_and_files_behind_follow_imports_that_run_when_a_file_is_loaded():
    """gmar stands on rule, and rule on sums; hooks is imported late, and flags by the type checker alone."""
    house = made_of(
        attr__gmar="from captum_gmar.engine import rule\nfrom captum_gmar.engine.sums import add",
        engine__rule="from captum_gmar.engine.sums import add\ndef late():\n    from captum_gmar.engine import hooks",
        engine__sums="if TYPE_CHECKING:\n    from captum_gmar.engine import flags",
        engine__hooks="",
        engine__flags="",
    )
    arrows_of = file_arrows_when_loaded(house)
    names = [f"captum_gmar.{name}" for name in ("attr.gmar", "engine.rule", "engine.sums")]
    assert longest_chain(arrows_of) == names
    assert files_behind(names[0], arrows_of) == set(names)
    assert inside("captum_gmar.engine", house) == (4, 3)


@pytest.mark.parametrize(("method", "most"), [("gmar", 18), ("rollout", 18), ("token_evidence", 21), ("published", 7)])
def test_few_files_stand_behind_a_method(modules, method, most):
    assert len(files_behind(f"captum_gmar.attr.{method}", file_arrows_when_loaded(modules))) <= most


def test_chains_of_imports_are_short(modules):
    package = [module for module in modules if module.is_of_the_package]
    assert len(longest_chain(file_arrows_when_loaded(package))) <= 14


def test_the_engine_is_seen_at_a_glance(modules):
    """Hold the files and folders of the engine, and of each folder in it, to a number that one takes in at once."""
    rooms, height = inside("captum_gmar.engine", modules)
    assert (rooms <= 14, height <= 5) == (True, True)
    for folder in ("attention", "hidden_states", "hooks", "kernels", "models", "values"):
        rooms, height = inside(f"captum_gmar.engine.{folder}", modules)
        assert (rooms <= 11, height <= 6) == (True, True), folder


def test_docstrings_begin_with_what_a_function_does(modules):
    package = [module for module in modules if module.is_of_the_package]
    clauses = [begins_with_a_clause(function) for function in functions(package) if has_docstring(function)]
    assert sum(clauses) <= 0.01 * len(clauses)


def test_clauses_and_prepositions_are_counted():
    (module,) = made_of(
        engine__rule="""
def one(of_layers): "Of each layer."
def two(layers): "Return the layers."
def three(): "Whether, in the end, it is one."
def of_parts(): return of_parts
"""
    )
    assert [begins_with_a_clause(function) for function in functions([module])] == [True, False, True, False]
    assert prepositions([module]) == {"of_layers": 1}


def test_help_loads_nothing_that_computes():
    """The command line reads its arguments before it loads what they ask for."""
    code = "import sys, captum_gmar.cli.main as c\ntry: c.main(['evaluate', '--help'])\nexcept SystemExit: pass\n"
    code += "print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert "captum_gmar.cli.evaluate" in loaded
    assert not {"torch", "captum", "transformers", "matplotlib", "numpy", "PIL"} & set(loaded)
    assert not {"dataclasses", "subprocess", "socket", "logging"} & set(loaded)  # a fifth of the time that help takes
    assert not [name for name in loaded if name.startswith(("captum_gmar.engine.", "captum_gmar.visualization."))]
