"""``captum-gmar evaluate``: faithfulness and place of the maps of methods, over a data set."""

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.attr.catalogue import EVALUATED
from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.cli.options import (
    DRAWN_SCENES,
    AddNames,
    add_methods,
    add_resources,
    add_sample,
    add_steps,
    command_parser,
    names_of,
    part,
    path,
)
from captum_gmar.cli.terminal import CommandError, print_text
from captum_gmar.evaluation.catalogue import DEFAULT_REMOVALS, METRICS, REMOVALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from captum_gmar.evaluation.data.subject import Subject
    from captum_gmar.evaluation.runs.run import Workplace
    from captum_gmar.evaluation.settings import EvaluationSettings


DATA_HELP = """\
DATA is one of
  an image, a folder of images, or a folder with a subfolder for each class
  a .csv file with columns path and label, and optionally boxes and mask
  a .json list of records with these keys
  a data set on disk, saved by the `datasets` library: image, label, boxes, mask
Paths in files are absolute or relative to the file. For several GPUs, with one
process each: torchrun --nproc-per-node K -m captum_gmar ...
"""

DESCRIPTION = """\
Measures the faithfulness and localisation of several methods over a data set.
Every method explains the same class of the same images. A random, a uniform and
a centred map are measured too. If a run is killed, the same command continues
it.
"""

EPILOG = f"""\
{DATA_HELP}
Boxes are lists of x0, y0, x1, y1 in pixels of the image; masks are images that
are not zero on the object.
Without DATA and --model the built-in model is measured on built-in scenes of
two objects each.

RESULTS holds summary.md, summary.csv (means with 95 % bootstrap intervals),
differences.csv (of every two methods on the same images), examples.csv,
curves.csv, plots/, figures.bib (their caption, and the methods' papers as
BibTeX), settings.json, skipped.csv if images were left out, and journal/, from
which the same command continues, also with more images or methods.

exit status: 0 all images measured, 1 some left out, 2 bad usage or nothing
  done, 130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "measure how faithful methods are, over a data set"
    run = partial(run_on_data, work=_evaluate, name="evaluate", objects=2)
    parser = command_parser(subparsers, "evaluate", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add_data(parser)
    add_methods(parser, EVALUATED)
    _add_measures(parser)
    add("--part", type=part, default=(1, 1), metavar="K/N", help="take every Nth image, from the Kth on")
    add_sample(parser)
    add("--output", type=path, required=True, metavar="RESULTS", help="folder of the results, see below")
    add_resources(parser, batch_size=16)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Declare the data and the model."""
    parser.add_argument("data", nargs="?", type=path, metavar="DATA", help="the images, see below")
    parser.add_argument("--model", metavar="ID_OR_PATH", help="image classifier: Hugging Face id or local folder")


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the measurement."""
    add = parser.add_argument
    add(
        "--metrics",
        type=names_of(tuple(METRICS)),
        action=AddNames,
        metavar="NAME,...",
        help=f"{', '.join(METRICS)}, or all that the data allows; may be repeated (default: the first five and, "
        "where boxes or masks are known, the three after them)",
    )
    add(
        "--removal",
        type=names_of(tuple(REMOVALS)),
        action=AddNames,
        default=DEFAULT_REMOVALS,
        metavar="NAME,...",
        help="how insertion, deletion and metrics from srg to class-gain remove patches: "
        f"{', '.join(REMOVALS)}, or all; may be repeated (default: {','.join(DEFAULT_REMOVALS)})",
    )
    add(
        "--target",
        choices=["predicted", "label"],
        help="class to explain (default: predicted; for built-in scenes, label)",
    )
    add_steps(parser)
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision of passes over perturbed images; bfloat16 is faster on many GPUs. Maps are always in float32",
    )


def run_on_data(
    arguments: argparse.Namespace,
    work: "Callable[[argparse.Namespace, Subject, Workplace], tuple[int, int]]",
    name: str,
    objects: int,
) -> tuple[int, int]:
    """Run work, which returns how many images were measured and left out, in this process and others of torchrun.

    Without data it is about built-in scenes of so many objects. ``name`` ends that of the folder, where none is given.
    """
    if bool(arguments.data) != bool(arguments.model):
        raise CommandError("DATA and --model require each other, but got one. Pass both, or neither for the scenes.")
    from captum_gmar.classifier import choose_device
    from captum_gmar.cli.sources import open_subject
    from captum_gmar.cli.terminal import listener_of
    from captum_gmar.evaluation.runs.processes import FailedElsewhere, joined_processes, local_device
    from captum_gmar.evaluation.runs.run import Workplace

    device = choose_device(local_device(arguments.device))
    command = shlex.join(["captum-gmar", *arguments.given])
    arguments.limit = arguments.limit or (None if arguments.data else DRAWN_SCENES)
    folder = arguments.output or Path(
        f"{arguments.data.resolve().stem if arguments.data else 'built-in-scenes'}-{name}"
    )
    with default_drawing(), joined_processes(device) as processes, open_subject(arguments, device, objects) as subject:
        listener = listener_of("the same command", speaks=processes.is_first)
        try:
            done, skipped = work(arguments, subject, Workplace(folder, listener, command, processes))
        except FailedElsewhere:
            return 0, 1  # the process that failed says why
        return done, skipped if processes.is_first else 0


def _evaluate(arguments: argparse.Namespace, subject: "Subject", place: "Workplace") -> tuple[int, int]:
    from captum_gmar.evaluation.evaluate import make_methods, run_evaluation
    from captum_gmar.evaluation.reports.report_files import SUMMARY
    from captum_gmar.evaluation.runs.progress import count

    settings, classifier = _settings(arguments, subject), subject.classifier
    methods = make_methods(settings.methods, classifier.model, classifier.logits)
    evaluation, measured = run_evaluation(settings, methods, subject, place)
    if place.processes.is_first and evaluation.tables.summaries:
        print_text(f"{count(measured)} measured: {arguments.output / SUMMARY}")
    return measured, len(evaluation.skipped)


def _settings(arguments: argparse.Namespace, subject: "Subject") -> "EvaluationSettings":
    from captum_gmar.evaluation.catalogue import metrics_of
    from captum_gmar.evaluation.evaluate import methods_for
    from captum_gmar.evaluation.settings import EvaluationSettings

    metrics = arguments.metrics
    if metrics and set(metrics) == set(METRICS) and not any(example.has_object for example in subject.examples):
        metrics = tuple(name for name in metrics if name not in metrics_of("localisation"))
    return EvaluationSettings(
        methods=arguments.methods or methods_for(subject),
        metrics=metrics,
        removals=arguments.removal,
        target=arguments.target or ("predicted" if arguments.data else "label"),
        **{name: getattr(arguments, name) for name in ("steps", "seed", "limit", "part", "batch_size", "precision")},
    )
