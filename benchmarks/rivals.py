"""Every method of the library beside the newest rivals, LRP rules and log-odds among them, by the papers' protocol.

    python -m benchmarks.rivals --output FOLDER [DATA --model MODEL | --objects 1] [--part K/N] [--limit N] [--steps N]

on images with boxes or masks, or without DATA on the built-in scenes. FOLDER is one of results, as `captum-gmar
evaluate` writes it: the same command goes on where it was killed, and with a larger --limit. `--many` adds methods of
many passes. `python -m benchmarks.cost FOLDER` draws cost beside faithfulness.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.lrp import LRP_ROWS, lrp_method
from captum_gmar import LibraAttCAT, LibraFullGradPlus
from captum_gmar.attr.catalogue import CAPTUMS, METHODS, OURS
from captum_gmar.attr.patch_relevance import Method
from captum_gmar.classifier import load_classifier
from captum_gmar.cli.options import names_of, part
from captum_gmar.cli.scene_subjects import scene_subject
from captum_gmar.evaluation.catalogue import METRICS, REMOVALS
from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.evaluate import run_evaluation
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener
from captum_gmar.evaluation.settings import EvaluationSettings

PROTOCOL = ("srg", "mif-accuracy", "aopc", "insertion", "deletion")
MANY_PASSES = ("integrated-gradients", "gradient-shap", "occlusion")
OF_LOG_ODDS: Mapping[str, Callable[..., Method]] = {
    "libra-fullgrad+ of log-odds": partial(LibraFullGradPlus, score="log-odds"),
    "libra-attcat of log-odds": partial(LibraAttCAT, score="log-odds"),
}


def rivals(with_many_passes: bool = False) -> dict[str, Callable[[nn.Module], Method]]:
    """By name, from a model to a method: ours, those of others, and Captum's of one pass or of many."""
    captums = [name for name in CAPTUMS if with_many_passes or name not in (*MANY_PASSES, "feature-ablation")]
    named = {name: METHODS[name].load() for name in (*OURS, *captums) if name != "feature-ablation"}
    lrp = {name: partial(lrp_method, rules=rules) for name, rules in LRP_ROWS.items()}
    return {**named, **OF_LOG_ODDS, **lrp}


def measure(subject: Subject, settings: EvaluationSettings, with_many_passes: bool, folder: Path, command: str) -> int:
    """How many images were measured."""
    model = subject.classifier.model
    methods = {name: make(model) for name, make in rivals(with_many_passes).items() if name in settings.methods}
    listener = Listener(_say, _say, has_bar=True)
    return run_evaluation(settings, methods, subject, folder, Processes(0, 1), listener, command).measured


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", nargs="?", type=Path)
    add("--model")
    add("--objects", type=int, choices=[1, 2], default=2, help="in a built-in scene")
    add("--metrics", type=names_of(tuple(METRICS)), default=PROTOCOL, metavar="NAME,...")
    add("--removal", type=names_of(tuple(REMOVALS)), default=("mean",), metavar="NAME,...")
    add("--steps", type=int, default=28)
    add("--part", type=part, default=(1, 1), metavar="K/N")
    add("--limit", type=int, default=40)
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add("--many", action="store_true", help="methods of many passes as well")
    add("--output", type=Path, required=True, metavar="FOLDER")
    return parser


def main(given: list[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(given)
    if bool(arguments.data) != bool(arguments.model):
        parser.error("DATA and --model go together")
    settings = EvaluationSettings(
        methods=tuple(rivals(arguments.many)),
        metrics=arguments.metrics,
        removals=arguments.removal,
        target="predicted" if arguments.data else "label",
        steps=arguments.steps,
        limit=arguments.limit,
        part=arguments.part,
        precision=arguments.precision,
    )
    command = shlex.join(["python", "-m", "benchmarks.rivals", *(sys.argv[1:] if given is None else given)])
    run: Any = partial(
        measure, settings=settings, with_many_passes=arguments.many, folder=arguments.output, command=command
    )
    cpu = torch.device("cpu")
    if arguments.data:
        classifier = load_classifier(arguments.model, device=cpu)
        run(Subject(classifier, read_examples(arguments.data), arguments.model, str(arguments.data)))
    else:
        with scene_subject(arguments.objects, None, cpu) as subject:
            run(subject)


if __name__ == "__main__":
    main()
