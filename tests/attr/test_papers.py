"""Papers of methods: each has one, BibTeX holds each once, and a caption cannot break it."""

import pytest

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.attr.papers import cite_methods, papers_of, read_papers

WITHOUT = ("raw-attention", "gmar++", "attcat", "feature-ablation")  # no paper, or none on arXiv


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITHOUT])
def test_every_method_has_a_paper_with_an_entry(method):
    keys = [read_papers()[number][0] for number in papers_of(method)]
    assert keys
    assert f"{method} \\cite{{{','.join(keys)}}}" in cite_methods([method], "")


def test_gmar_is_cited_by_its_own_paper_first():
    assert papers_of("gmar-l1")[0] == "2504.19414"
    assert read_papers()["2504.19414"][0] == "jo2025gmar"


def test_every_entry_once_and_whole():
    text = cite_methods(["gmar-l1", "gmar-l2", "rollout", "random map"], "100 % of a_b@c & more.")
    caption, *entries = text.split("\n\n")
    assert [entry.partition("{")[2].partition(",")[0] for entry in entries] == ["jo2025gmar", "abnar2020rollout"]
    assert all(entry.count("{") == entry.count("}") for entry in entries)
    assert "random map" in caption
    assert caption.endswith("100 \\% of a\\_b at c \\& more.")
    assert text.count("@") == 2


def test_a_budget_has_the_papers_of_its_method():
    text = cite_methods(["token-evidence@5"], "")
    assert text == cite_methods(["token-evidence"], "").replace("token-evidence", "token-evidence at 5", 1)
    assert "\\cite{" in text.split("\n\n")[0]
