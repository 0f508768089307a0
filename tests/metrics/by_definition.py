"""Rank correlation from its definition."""


def slow_spearman(a, b):
    """From the definition: Pearson's correlation of the ranks, ties sharing the mean of theirs."""

    def ranks(values):
        return [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]

    x, y = ranks(a), ranks(b)
    x, y = ([v - sum(z) / len(z) for v in z] for z in (x, y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5
