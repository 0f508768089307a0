"""The variants that the ablation measures, against their formulas in float64."""

from dataclasses import replace

import oracle
import pytest
import torch
from families import make

pytest.importorskip("benchmarks.ablation", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks.ablation import VARIANTS, WHOLE, summaries, to_markdown
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.evaluation.runs.journal import Result, Row

TARGETS = [3, 0, 9]


def of_layers(attention, gradient, of, cut=lambda given: given):
    """(N, T): what ``of`` makes of A and G, added up over heads and rows; the mean of the layers."""
    return torch.stack([cut(of(a, g).sum((1, 2))) for a, g in zip(attention, gradient, strict=True)]).mean(0)


def of_own_log_odds(of, **options):
    return lambda dense: of_layers(dense.attention, dense.own_gradient_of_log_odds, of, **options)


def product(a, g):
    return a * g


def weighted(a, g):
    norms = g.abs().sum((2, 3), keepdim=True)
    return norms / norms.sum(1, keepdim=True) * a * g


FORMULAS = {
    WHOLE: lambda dense: oracle.attention_evidence(dense)[:, 0],
    "the logit in place of the log-odds": lambda dense: of_layers(dense.attention, dense.own_gradient, product),
    "gradient through all layers": lambda dense: of_layers(dense.attention, dense.of_log_odds, product),
    "without evidence against, each head and row": of_own_log_odds(lambda a, g: (a * g).clamp(min=0)),
    "without evidence against, each layer": of_own_log_odds(product, cut=lambda given: given.clamp(min=0)),
    "without attention, Σ G": of_own_log_odds(lambda a, g: g),
    "minus what is attended on average, A ⊙ (G − Σ A ⊙ G)": of_own_log_odds(
        lambda a, g: a * (g - (a * g).sum(-1, keepdim=True))
    ),
    "heads weighted by GMAR's L1": of_own_log_odds(weighted),
    "last layer alone": lambda dense: oracle.attention_evidence(dense, -1)[:, 0],
    "GMAR++": lambda dense: oracle.gmar_plus_plus(dense)[:, 0],
    "GMAR++ of the log-odds": lambda dense: oracle.gmar_plus_plus(replace(dense, gradient=dense.of_log_odds))[:, 0],
    "LeGrad": lambda dense: oracle.legrad(dense)[:, 0],
    "LeGrad of the log-odds": lambda dense: oracle.layer_mean(
        [gradient.clamp(min=0) for gradient in dense.own_gradient_of_log_odds]
    )[:, 0],
}


@pytest.fixture(scope="module")
def case():
    """A model, images, and its dense matrices."""
    model, _ = make("ViT")
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    layers = transformer_layers(model)
    record = oracle.with_truncations(model, layers, lambda copied, pixels: copied(pixels).logits, inputs, TARGETS)
    record.of_log_odds = record.truncated(len(layers) - 1, oracle.log_odds).gradient
    return model, inputs, record


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name, case):
    model, inputs, dense = case
    found = VARIANTS[name](model).relevance(inputs, TARGETS).flatten(1)
    expected = FORMULAS[name](dense)[:, -found.shape[1] :]
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_differences_are_to_the_whole_method():
    """Of ten images on which a variant loses 0.2 or 0.4 in every removal: means are those of ten coins."""
    results = []
    for image, lost in enumerate((0.2, 0.4) * 5):
        rows = []
        for method, inserted in ((WHOLE, 0.9), ("variant", 0.9 - lost)):
            for removal in ("mean", "blur", "noisy-linear", "tokens"):
                rows += [Row(method, "insertion", removal, inserted), Row(method, "deletion", removal, 0.1)]
            rows.append(Row(method, "relevance-mass", "", 0.5))
        results.append(Result(image, 0, tuple(rows)))
    whole, variant = (" ".join(line.split()) for line in to_markdown(summaries(results)).splitlines()[2:])
    assert whole.split(" | ")[1:-1] == ["0.800"] * 5 + ["0.500"]
    assert variant.split(" | ")[1:-1] == ["0.500"] * 5 + ["0.500"]
    assert "-0.300 [-0.360, -0.240]" in variant
