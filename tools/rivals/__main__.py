"""Measure on photos or scenes, and make tables: `python -m tools.rivals photos|scenes|table`.

Every image is a line of the output, so that a run that is stopped goes on, and several runs of a part each can be read
together.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from captum_gmar.classifier import load_classifier
from captum_gmar.demo import load_model, make_scene
from captum_gmar.demo.patches import PATCH, scene_pixel_values
from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.reports.statistics import Quantity, summarise
from tools.rivals import measuring
from tools.rivals.measuring import NAMES, REMOVALS, Subject, Values

REPORTING_SCENES = 720_000  # seed of the first


def photo_numbers(photos: int) -> list[int]:
    """Of the reporting half, in a random order."""
    numbers = [number for number in range(photos) if number % 4 >= 2]
    random.Random(0).shuffle(numbers)
    return numbers


def run(
    arguments: argparse.Namespace, numbers: Sequence[int], read: Callable[[int], Subject], model: nn.Module
) -> None:
    """Measure one image after the other, those that are in the output left out."""
    explainers = measuring.make_methods(model, arguments.methods)
    ways = measuring.removals(model, arguments.removals)
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    done = {json.loads(line)["number"] for line in lines}
    for number in measuring.share(numbers[: arguments.limit], arguments.part):
        if number in done:
            continue
        subject = read(number)
        values: Values = {}
        if arguments.sensitivity:
            values = {name: {"sensitivity": measuring.sensitivity(made, subject)} for name, made in explainers.items()}
        else:
            values = measuring.measure(model, explainers, ways, subject, arguments.steps, arguments.patch)
        with arguments.output.open("a") as output:
            output.write(json.dumps({"number": number, "values": values}) + "\n")


def photos(arguments: argparse.Namespace) -> None:
    classifier = load_classifier(str(arguments.model))
    examples = read_examples(arguments.images)

    def read(number: int) -> Subject:
        image = examples[number].read()
        pixels = classifier.pixel_values(image)
        box = examples[number].read_mask(*image.size)
        assert box is not None
        with torch.no_grad():
            target = int(classifier.logits(pixels).argmax())
        return Subject(pixels, target, classifier.mask(box))

    arguments.patch = int(classifier.model.config.patch_size)
    run(arguments, photo_numbers(len(examples)), read, classifier.model.requires_grad_(False))


def scenes(arguments: argparse.Namespace) -> None:
    if arguments.model:
        from transformers import AutoModelForImageClassification

        model = AutoModelForImageClassification.from_pretrained(arguments.model).eval()
    else:
        model = load_model()

    def read(number: int) -> Subject:
        scene = make_scene(number, 1 + number % 2)
        return Subject(scene_pixel_values([scene]), scene.labels[0], torch.from_numpy(scene.masks[0]))

    arguments.patch = PATCH
    first = REPORTING_SCENES
    run(arguments, range(first, first + arguments.limit), read, model.requires_grad_(False))


def table(arguments: argparse.Namespace) -> None:
    """Print means, and of each method what the first leads it by."""
    lines = [json.loads(line) for path in arguments.files for line in path.read_text().splitlines()]
    ours, *others = lines[0]["values"]
    print(f"{len(lines)} images. Of each method the mean, and in brackets {ours} less it, with 95 % intervals.\n")
    metrics = list(lines[0]["values"][ours])
    print(f"| method | {' | '.join(metrics)} |\n|{' --- |' * (1 + len(metrics))}")
    rows: dict[str, list[str]] = {name: [name] for name in (ours, *others)}
    for metric in metrics:
        values = {name: [line["values"][name][metric] for line in lines] for name in rows}
        summary = summarise(Quantity(metric, ""), values)
        for name, mean in zip(summary.methods, summary.means, strict=True):
            cell = f"{mean.mean:.3f}"
            if name != ours:
                lead = summary.differences[ours, name]
                bold = "**" if lead.low > 0 or lead.high < 0 else ""
                cell += f" ({bold}{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]{bold})"
            rows[name].append(cell)
    for row in rows.values():
        print(f"| {' | '.join(row)} |")


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(prog="python -m tools.rivals", description="One-pass methods side by side.")
    commands = parser.add_subparsers(required=True)
    for command in (photos, scenes):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(run=command)
        sub.add_argument("--model", type=Path, help="folder")
        sub.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES)
        sub.add_argument("--removals", nargs="+", choices=REMOVALS, default=REMOVALS)
        sub.add_argument("--steps", type=int, default=6)
        sub.add_argument("--limit", type=int, default=100)
        sub.add_argument("--part", type=_part, default=(1, 1), metavar="K/N")
        sub.add_argument("--sensitivity", action="store_true", help="measure sensitivity_max alone")
        sub.add_argument("--output", type=Path, required=True, help="a line of JSON for each image")
        if command is photos:
            sub.add_argument("--images", type=Path, required=True, help="JSON list of files, labels and boxes")
    sub = commands.add_parser("table")
    sub.set_defaults(run=table)
    sub.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    arguments.run(arguments)


def _part(text: str) -> tuple[int, int]:
    first, step = map(int, text.split("/"))
    return first, step


if __name__ == "__main__":
    main()
