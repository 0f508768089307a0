"""Rank correlation from its definition, a linear model of six pixels, and a count of a model's images."""

import torch

WEIGHTS = torch.tensor([[4.0, 1.0, -2.0], [3.0, 2.0, 0.5]])
ONES = torch.ones(1, 1, 2, 3)


def linear(inputs):
    return (inputs * WEIGHTS).sum((1, 2, 3))


def counting(model):
    """Wrap a model so that ``sizes`` holds the number of images of each call."""

    def forward_func(inputs):
        forward_func.sizes.append(len(inputs))
        return model(inputs)

    forward_func.sizes = []
    return forward_func


def slow_spearman(a, b):
    """Compute Pearson's correlation of ranks, where ties share the mean of their ranks."""

    def ranks(values):
        return [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]

    x, y = ranks(a), ranks(b)
    x, y = ([v - sum(z) / len(z) for v in z] for z in (x, y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5
