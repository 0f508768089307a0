"""``captum-gmar compare``: several methods on one image, with their faithfulness and cost."""

import argparse
from pathlib import Path
from typing import Any

from captum_gmar.attr.catalogue import COMPARED
from captum_gmar.cli.explain import SCENE_NAME
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    MOST_LIKELY,
    CompareSettings,
    Top,
    add_methods,
    add_resources,
    add_steps,
    command_parser,
    path,
    place,
    positive_number,
    target,
)
from captum_gmar.cli.paths import (
    COMPARISON_MARK,
    FORMATS,
    TABLES,
    comparison_mark,
    picture_mark,
    plan_file,
    plan_pictures,
)
from captum_gmar.cli.terminal import CommandError
from captum_gmar.evaluation.catalogue import REMOVALS

DESCRIPTION = """\
Explains one prediction by several methods and measures each: the class's
probability as its most relevant patches are inserted or deleted, the time, and
the number of images in forward and backward passes. It prints a table and
writes a picture of the maps side by side with their curves. Without an image
and a model it compares methods on a built-in scene with the built-in model, and
needs no network.
"""

EPILOG = f"""\
Below the methods, the table has controls that ignore the model: a random map, a
uniform map and a blob in the centre. Times are medians of three runs, also as
multiples of the model's own forward pass.

picture formats: {", ".join(FORMATS)}
exit status: 0 done, 2 bad usage or nothing done, 130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "measure and draw several methods side by side on one image"
    parser = command_parser(subparsers, "compare", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("image", nargs="?", type=path, metavar="IMAGE", help="image file")
    add("--model", type=place, metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")
    add_methods(parser, COMPARED)
    add(
        "--target",
        type=target,
        default=MOST_LIKELY,
        metavar="CLASS",
        help="class index, label, or top1, the most likely class",
    )
    add(
        "--removal",
        choices=REMOVALS,
        default="blur",
        help="how insertion and deletion remove patches (default: %(default)s); tokens removes them inside the model",
    )
    add_steps(parser)
    add(
        "--ig-steps",
        type=positive_number,
        default=50,
        metavar="N",
        help="steps of integrated gradients (default: %(default)s)",
    )
    add(
        "--output",
        type=place,
        metavar="FILE_OR_FOLDER",
        help=f"picture, or folder, which is made if it ends in a slash, for <image>-{COMPARISON_MARK}.png",
    )
    add("--save-table", type=place, metavar="FILE", help=f"also write the table, as .{', .'.join(TABLES)}")
    add("--cite", type=place, metavar="FILE.bib", help="also write the caption, and the methods' papers as BibTeX")
    add_resources(parser, 16)


def run(arguments: argparse.Namespace) -> tuple[int, int]:
    """Run the command, and return how many images were compared and how many failed: one and none."""
    if bool(arguments.image) != bool(arguments.model):
        raise CommandError("IMAGE and --model require each other, but got one. Pass both, or neither for the scene.")
    if isinstance(arguments.target, Top) and arguments.target != MOST_LIKELY:
        raise CommandError(f"--target must be top1, an index or a label, but got 'top{arguments.target.classes}'.")
    given = {name: getattr(arguments, name) for name in CompareSettings._fields}
    given["target"] = arguments.target if isinstance(arguments.target, str) else None
    settings = CompareSettings(**given)
    image = arguments.image or Path(SCENE_NAME)
    noted = {"model": arguments.model and Path(arguments.model), **settings._asdict()}
    (picture,) = plan_pictures([image], arguments.output, _mark(settings), noted)
    citations = plan_file(arguments.cite, ["bib"], "--cite")
    table = plan_file(arguments.save_table, TABLES, "--save-table")
    with default_drawing():
        from captum_gmar.attr.papers import cite_methods
        from captum_gmar.cli.compare_image import compare_image
        from captum_gmar.cli.sources import open_source
        from captum_gmar.files.writing import write_text

        source = open_source(arguments.model, arguments.size, arguments.device)
        compared = compare_image(source, image, picture, table, settings)
        if citations is not None:
            write_text(citations, cite_methods([method.name for method in compared.methods], compared.caption))
    return 1, 0


def _mark(settings: CompareSettings) -> str:
    """Return the end of the picture's name."""
    usual = CompareSettings._field_defaults
    parts = [settings.target or "", "" if settings.removal == usual["removal"] else f"removal {settings.removal}"]
    numbers = {"steps": settings.steps, "size": settings.size}
    numbers["ig steps"] = None if settings.ig_steps == usual["ig_steps"] else settings.ig_steps
    parts += [f"{name} {number}" for name, number in numbers.items() if number is not None]
    mark = comparison_mark(COMPARISON_MARK, settings.methods or COMPARED, COMPARED)
    return "-".join(filter(None, [mark, picture_mark(*parts)]))
