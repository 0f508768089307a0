"""What each part of attention evidence is worth: the method without it, measured on the halves that are for choosing.

    python -m benchmarks.ablation --output FILE.md [DATA --model MODEL | --objects 1] [--limit N]

on images with boxes or masks, or without DATA on the built-in scenes, as docs/protocol.md has it. Writes
a table: insertion less deletion (7 steps), the mean over removals and for each; how much of the relevance lies on the
object; and of each variant its difference to the whole method on the same images, with 95 % bootstrap intervals.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_gmar import AttentionEvidence, GMARPlusPlus, LeGrad
from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.rules import EvidenceRule
from captum_gmar.attr.scores import log_odds
from captum_gmar.classifier import load_classifier
from captum_gmar.cli.sources import scene_subject
from captum_gmar.engine.kernels.reduction import (
    Block,
    Blocks,
    HeadSums,
    Reduction,
    positive_product,
    product,
    read_blocks,
    sum_up,
)
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.rule import Step, fuse_rows, head_weights
from captum_gmar.evaluation.catalogue import DIFFERENCE
from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.data.subject import Subject, sample_numbers
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.reports.statistics import Quantity, Summary, summarise_quantity, values_by_quantity
from captum_gmar.evaluation.runs.journal import Result, result_of
from captum_gmar.evaluation.settings import EvaluationSettings
from captum_gmar.files.markdown import table

REMOVALS = ("mean", "blur", "noisy-linear", "tokens")
STEPS, AT_ONCE, CHOOSING = 7, 16, (1, 2)
MASS, MEAN = "relevance-mass", Quantity(DIFFERENCE, "mean of removals")
WHOLE = "attention evidence"


@dataclass(frozen=True)
class Variant:
    """The sum over layers, heads and rows of something else than A ⊙ G."""

    of: Callable[[Block], Tensor]  # (N, H, R, T)
    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return Step(relevance + sum_up([self.of(block).sum((1, 2)) for block in layer]))


@dataclass(frozen=True)
class PositiveLayers(EvidenceRule):
    """Each layer's evidence against the class is cut off."""

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        layer = super().step(torch.zeros_like(relevance), heads).relevance
        return Step(relevance + layer.clamp(min=0))


@dataclass(frozen=True)
class WeightedHeads:
    """Heads count by GMAR's weights."""

    layerwise: ClassVar[bool] = True

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        rows, norms, _ = read_blocks(layer, Reduction(torch.ones_like(relevance), "product", "l1"))
        return Step(relevance + fuse_rows(rows, head_weights(norms)))


class Method(AttentionAttribution):
    """A rule as a method."""

    name = "variant"

    def __init__(self, model: nn.Module, rule: Any, separate: bool = True, log_odds: bool = True) -> None:
        super().__init__(model, Plan(rule, separate=separate), of_log_odds(model) if log_odds else None)


def beyond_mean(block: Block) -> Tensor:
    """Return the gradient with respect to the scores before softmax: a value's lead over those attended to."""
    given = product(block)
    return given - block.attention * given.sum(-1, keepdim=True)


def of_log_odds(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda pixels: log_odds(model(pixels).logits)


VARIANTS: dict[str, Callable[[nn.Module], AttentionAttribution]] = {
    WHOLE: AttentionEvidence,
    "the logit in place of the log-odds": partial(Method, rule=EvidenceRule(), log_odds=False),
    "gradient through all layers": partial(Method, rule=EvidenceRule(), separate=False),
    "without evidence against, each head and row": partial(Method, rule=Variant(positive_product)),
    "without evidence against, each layer": partial(Method, rule=PositiveLayers()),
    "without attention, Σ G": partial(Method, rule=Variant(lambda block: block.gradient)),
    "minus what is attended on average, A ⊙ (G − Σ A ⊙ G)": partial(Method, rule=Variant(beyond_mean)),
    "heads weighted by GMAR's L1": partial(Method, rule=WeightedHeads()),
    "last layer alone": partial(AttentionEvidence, start_layer=-1),
    "GMAR++": GMARPlusPlus,
    "GMAR++ of the log-odds": lambda model: GMARPlusPlus(model, forward_func=of_log_odds(model)),
    "LeGrad": LeGrad,
    "LeGrad of the log-odds": lambda model: LeGrad(model, forward_func=of_log_odds(model)),
}


def measured(subject: Subject, limit: int, in_bfloat16: bool) -> Iterator[Result]:
    """Everything of the choosing half's examples, or so many of them."""
    model = subject.classifier.model
    settings = EvaluationSettings(
        methods=tuple(VARIANTS),
        metrics=("insertion", "deletion", MASS),
        removals=REMOVALS,
        target="predicted" if in_bfloat16 else "label",
        steps=STEPS,
        batch_size=AT_ONCE,
        precision="bfloat16" if in_bfloat16 else "float32",
    )
    work = Faithfulness(settings, {name: make(model) for name, make in VARIANTS.items()}, subject, print)
    for number in tqdm(sample_numbers(len(subject.examples), limit, 0, CHOOSING)):
        records, _ = work.batches.finish([number], partial(work.measure, VARIANTS, {}))
        yield from (result_of(number, [record]) for record in records)


def summaries(results: Sequence[Result]) -> dict[Quantity, Summary]:
    values = values_by_quantity(results)
    own = [values[Quantity(DIFFERENCE, removal)] for removal in REMOVALS]
    values[MEAN] = {name: [sum(row) / len(row) for row in zip(*(o[name] for o in own), strict=True)] for name in own[0]}
    return {quantity: summarise_quantity(quantity, values[quantity]) for quantity in values}


def to_markdown(found: dict[Quantity, Summary]) -> str:
    columns = [MEAN, *(Quantity(DIFFERENCE, removal) for removal in REMOVALS), Quantity(MASS, "")]
    rows = []
    for place, name in enumerate(found[MEAN].methods):
        difference = "" if name == WHOLE else found[MEAN].differences[name, WHOLE].text("+.3f")
        rows.append([name, *(f"{found[column].means[place].mean:.3f}" for column in columns), difference])
    header = ["variant", "mean of removals", *REMOVALS, "relevance in the object", f"difference to {WHOLE}"]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--objects", type=int, choices=[1, 2], default=2, help="in a built-in scene")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if bool(arguments.data) != bool(arguments.model):
        parser.error("DATA and --model go together")
    cpu = torch.device("cpu")
    if arguments.data:
        classifier = load_classifier(arguments.model, device=cpu)
        subject = Subject(classifier, read_examples(arguments.data), arguments.model, str(arguments.data))
        results = list(measured(subject, arguments.limit, in_bfloat16=True))
    else:
        with scene_subject(arguments.objects, None, cpu) as subject:
            results = list(measured(subject, arguments.limit, in_bfloat16=False))
    told = f"{subject.model_name}, {subject.data_name}, {len(results)} images of the choosing half"
    arguments.output.write_text(f"{told}\n\n{to_markdown(summaries(results))}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
