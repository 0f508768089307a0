"""Every method of the library beside the newest rivals, LRP rules and log-odds among them, by the papers' protocol.

    python -m benchmarks.rivals --output FOLDER [DATA --model MODEL] [--methods NAME ...] [--part K/N] [--limit N]
    python -m benchmarks.rivals --output FOLDER [--model MODEL] [--objects 1] [--first-seed 720000]

on images with boxes or masks, or without DATA on built-in scenes, of one object and of two in turn, whose model is
the built-in one or another that was trained on such scenes. FOLDER is one of results, as `captum-gmar evaluate` writes
it: the same command goes on where it was killed, and with a larger --limit or more methods. `--methods library` takes
every method of the library, and LibraGrad's of the log-odds. `--many` adds methods of many passes. `python -m
benchmarks.leads FOLDER` makes a table of what one method leads the others by, `python -m benchmarks.cost FOLDER` draws
cost beside faithfulness.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from benchmarks import many_passes
from benchmarks.lrp import LRP_ROWS, lrp_method
from captum_gmar import LibraAttCAT, LibraFullGradPlus
from captum_gmar.attr.catalogue import CAPTUMS, METHODS, OURS
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.cli.options import TOKEN_FORMS, names_of, part, token
from captum_gmar.cli.sources import SCENES, scene_example
from captum_gmar.demo import model_folder
from captum_gmar.engine.models.readout_tokens import Part
from captum_gmar.evaluation.catalogue import METRICS, REMOVALS
from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject, sample_numbers
from captum_gmar.evaluation.evaluate import run_evaluation
from captum_gmar.evaluation.runs.progress import Listener
from captum_gmar.evaluation.runs.run import Workplace
from captum_gmar.evaluation.settings import EvaluationSettings

PROTOCOL = ("srg", "srg-probability", "mif-accuracy", "aopc", "relevance-mass")
REPORTING_SEED = 720_000  # of the first scene that no choice was made on
MANY_PASSES = ("integrated-gradients", "gradient-shap", "occlusion")
OF_LOG_ODDS: Mapping[str, Callable[..., Method]] = {
    "libra-fullgrad+ of log-odds": partial(LibraFullGradPlus, score="log-odds"),
    "libra-attcat of log-odds": partial(LibraAttCAT, score="log-odds"),
}

LIBRARY = (*(name for name in METHODS if name != "feature-ablation"), *OF_LOG_ODDS)  # occlusion equals the one left out


def rivals(with_many_passes: bool = False) -> dict[str, Callable[..., Method]]:
    """Return makers of methods by name: ours, those of others, and Captum's of one pass or of many."""
    captums = [name for name in CAPTUMS if with_many_passes or name not in (*MANY_PASSES, "feature-ablation")]
    named = {name: METHODS[name].load() for name in (*OURS, *captums) if name != "feature-ablation"}
    lrp = {name: partial(lrp_method, rules=rules) for name, rules in LRP_ROWS.items()}
    return {**named, **OF_LOG_ODDS, **lrp, **(many_passes.rows() if with_many_passes else {})}


def measure(
    subject: Subject, settings: EvaluationSettings, folder: Path, command: str, tokens: Sequence[Part] = ()
) -> int:
    """Measure all methods, with ``tokens`` for those that take it, and return the number of images."""
    makers = rivals(with_many_passes=True)
    methods = {}
    for name in settings.methods:
        takes_tokens = name in METHODS and METHODS[name].takes_tokens
        options = {"tokens": list(tokens)} if tokens and takes_tokens else {}
        methods[name] = makers[name](subject.classifier.model, **options)
    listener = Listener(_say, _say, has_bar=True)
    _, measured = run_evaluation(settings, methods, subject, Workplace(folder, listener, command))
    return measured


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", nargs="?", type=Path)
    add("--model")
    add("--methods", nargs="+", choices=["library", *rivals(True)], metavar="NAME", help="(default: all)")
    add("--objects", type=int, choices=[1, 2], help="in each built-in scene (default: one and two in turn)")
    add("--first-seed", type=int, default=REPORTING_SEED, help="of the built-in scenes (default: %(default)s)")
    add("--metrics", type=names_of(tuple(METRICS)), default=PROTOCOL, metavar="NAME,...")
    add("--removal", type=names_of(tuple(REMOVALS)), default=("mean",), metavar="NAME,...")
    add("--steps", type=int, default=28)
    add("--part", type=part, default=(1, 1), metavar="K/N")
    add("--limit", type=int, default=40)
    add("--sure", type=float, metavar="P", help="only images whose predicted class is more probable")
    add("--batch-size", type=int, default=4, help="images that are measured, and kept, at once (default: %(default)s)")
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add(
        "--tokens",
        type=token,
        action="append",
        default=[],
        metavar="WHERE",
        help=f"where relevance begins: {TOKEN_FORMS}",
    )
    add("--many", action="store_true", help="methods of many passes as well")
    add("--output", type=Path, required=True, metavar="FOLDER")
    return parser


def scenes(first_seed: int, objects: int | None) -> list[Example]:
    """Return scenes of this many objects, or of one for even seeds and two for odd ones."""
    return [scene_example(seed, objects or 1 + seed % 2) for seed in range(first_seed, first_seed + SCENES)]


def sure_examples(
    classifier: Classifier, examples: Sequence[Example], least: float, limit: int, which: tuple[int, int]
) -> list[Example]:
    """Return the first ``limit`` of a random order whose predicted class has a probability above ``least``."""

    def is_sure(example: Example) -> bool:
        with torch.no_grad():
            logits = classifier.logits(classifier.pixel_values(example.read()))
        return logits.softmax(1).max().item() > least

    order = sample_numbers(len(examples), None, 0, which)
    return list(islice(filter(is_sure, map(examples.__getitem__, order)), limit))


@contextmanager
def subject_of(arguments: argparse.Namespace) -> Iterator[Subject]:
    """Return the images, or scenes, and the model."""
    cpu = torch.device("cpu")
    if arguments.data:
        examples, name = read_examples(arguments.data), str(arguments.data)
    else:
        examples, name = scenes(arguments.first_seed, arguments.objects), f"built-in scenes from {arguments.first_seed}"
    with model_folder() as built_in:
        classifier = load_classifier(arguments.model or built_in, device=cpu)
        if arguments.sure is not None:
            examples = sure_examples(classifier, examples, arguments.sure, arguments.limit, arguments.part)
            name = f"{name}, photos with p > {arguments.sure:g}"
        yield Subject(classifier, examples, arguments.model or "the built-in model", name)


def main(given: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(given)
    if arguments.data and not arguments.model:
        parser.error("DATA must come with --model, but got none.")
    methods = arguments.methods or rivals(arguments.many)
    settings = EvaluationSettings(
        methods=tuple(name for row in methods for name in (LIBRARY if row == "library" else [row])),
        metrics=arguments.metrics,
        removals=arguments.removal,
        target="predicted" if arguments.data else "label",
        steps=arguments.steps,
        limit=arguments.limit,
        part=(1, 1) if arguments.sure is not None else arguments.part,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
    )
    command = shlex.join(["python", "-m", "benchmarks.rivals", *(sys.argv[1:] if given is None else given)])
    with subject_of(arguments) as subject:
        measure(subject, settings, arguments.output, command, arguments.tokens)


if __name__ == "__main__":
    main()
