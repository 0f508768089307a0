"""``captum-gmar heads``: how much each attention head matters, over images."""

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from captum_gmar.cli.evaluate import DATA_HELP, add_data, run_on_data
from captum_gmar.cli.options import AddNames, add_resources, add_sample, command_parser, names_of, path
from captum_gmar.cli.terminal import print_text
from captum_gmar.evaluation.catalogue import DEFAULT_SCORES, SCORES

if TYPE_CHECKING:
    from captum_gmar.evaluation.data.subject import Subject
    from captum_gmar.evaluation.runs.run import Workplace

DESCRIPTION = """\
Scores the importance of an image classifier's attention heads to the explained
class, on average over images. It prints a table of layers and heads and draws
it.
"""

EPILOG = f"""\
scores:
  gmar-l1, gmar-l2  GMAR's head importance, a share of its layer: the L1 or L2
    norm of the class logit's gradient with respect to the head's attention
  mask-gradient     by Michel et al.: change of the loss, to first order, if the
    head were removed, in nats (of the logit, for models with one class or
    several labels)
  entropy           entropy of the attention, in nats; ignores the class

{DATA_HELP}
Without DATA and --model, heads of the built-in model are scored on built-in
scenes of one object each.

RESULTS holds heads.md, heads.csv (mean and standard deviation over all images
and for each class), heads.png, settings.json, skipped.csv if images were left
out, and journal/, from which the same command continues a run that was killed.

exit status: 0 all images scored, 1 some left out, 2 bad usage or nothing done,
  130 interrupted
"""


def add_command(subparsers: Any) -> None:
    """Declare the command and its arguments."""
    about = "score attention heads"
    run = partial(run_on_data, work=_score_heads, name="heads", objects=1)
    parser = command_parser(subparsers, "heads", run, help=about, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add_data(parser)
    add(
        "--scores",
        type=names_of(tuple(SCORES)),
        action=AddNames,
        default=DEFAULT_SCORES,
        metavar="NAME,...",
        help=f"scores below, or all; may be repeated (default: {', '.join(DEFAULT_SCORES)})",
    )
    add(
        "--target",
        metavar="CLASS",
        help="class to explain: predicted (default), label (of each image in DATA; default for built-in scenes), or "
        "a class index or label for all images",
    )
    add_sample(parser)
    add("--output", type=path, metavar="RESULTS", help="folder of the results (default: <data>-heads), see below")
    add_resources(parser, batch_size=4)


def _score_heads(arguments: argparse.Namespace, subject: "Subject", place: "Workplace") -> tuple[int, int]:
    from captum_gmar.evaluation.heads import run_heads
    from captum_gmar.evaluation.runs.progress import count
    from captum_gmar.evaluation.settings import HeadSettings

    target = ("predicted" if arguments.data else "label") if arguments.target is None else arguments.target
    given = arguments.limit, arguments.seed, arguments.batch_size
    results = run_heads(HeadSettings(tuple(arguments.scores), target, *given), subject, place)
    if place.folder and place.processes.is_first:
        scored = f"{count(len(results.images))} scored for {results.explained}: {place.folder / 'heads.md'}"
        print_text(f"{results.tables()}\n\n{scored}")
    return len(results.images), len(results.skipped)
