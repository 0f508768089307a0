"""Measures where the words of Whisper come from, on sentences whose words have known times.

    python -m benchmarks.known_sounds --model FOLDER --sentences 20

lets espeak-ng speak sentences, in turn word by word with pauses and running, in two voices, and with --noise in white
noise. It writes tables in Markdown of every method: the share of a word's positive relevance in its own time, whether
its largest value is there, errors of its times, and the order of frames (log-odds of the word with the first frames
shown minus with them hidden, mean over steps).
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers.models.whisper import generation_whisper as whisper

from benchmarks.heard import FRAME, Heard, draw_heard
from captum_gmar import AnswerEvidence
from captum_gmar.attr.scores import log_odds
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import margin
from captum_gmar.vlm.attribution import AnswerAttribution, focus_attention
from captum_gmar.vlm.words import word_spans

STEPS = 7  # in which frames are shown or hidden
BLOCK = 5  # frames of 20 ms that are hidden together
BORDERS = (0.02, 0.05, 0.1)  # seconds
ORDERED_WORDS = (1, 2, 4, 7)  # of a sentence's eight, for the order of frames
ALIGNMENT_HEADS = ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))  # (layer, head) of tiny.en


@lru_cache(maxsize=1)
def explain(heard: Heard) -> AnswerAttribution:
    """Return the library's evidence for words."""
    inputs = {"encoder_outputs": (heard.states,), "decoder_input_ids": torch.tensor([heard.prefix])}
    return AnswerEvidence(heard.model).attribute(inputs, heard.ids).phrases(heard.words)


def evidence(heard: Heard) -> Tensor:
    """Return the library's evidence (W, S)."""
    return explain(heard).encoded_relevance


def focus(heard: Heard) -> Tensor:
    """Return attention × value norm where evidence speaks for the word, as AnswerAttribution.focus does."""
    return focus_attention(evidence(heard), explain(heard).attended)


def size(heard: Heard) -> Tensor:
    return evidence(heard).abs()


class Recorded(NamedTuple):
    """One pass with gradients: attention (L, H, T, S) and (L, H, T, T), states (1, S, width), scores (W,)."""

    cross: Tensor
    own: Tensor
    states: Tensor
    scores: Tensor
    norms: Tensor  # (L, H, S) of values after the output projection


@lru_cache(maxsize=1)
def record(heard: Heard) -> Recorded:
    states = heard.states.clone().requires_grad_()
    decoder = heard.model.model.decoder
    decoder.config._attn_implementation = "eager"
    out = decoder(heard.decoder_ids, encoder_hidden_states=states, output_attentions=True, use_cache=False)
    decoder.config._attn_implementation = "sdpa"
    logits = heard.model.proj_out(out.last_hidden_state[0, -len(heard.ids) :])
    scores = heard.by_word(log_odds(logits)[range(len(heard.ids)), heard.ids])
    cross, own = torch.cat(out.cross_attentions).detach(), torch.cat(out.attentions).detach()
    return Recorded(cross, own, states, scores, torch.stack([_value_norms(layer, states) for layer in decoder.layers]))


@torch.no_grad()
def _value_norms(layer: Any, states: Tensor) -> Tensor:
    """Return norms (H, S) of a layer's values after the output projection."""
    attention = layer.encoder_attn
    value = attention.v_proj(states)[0].unflatten(-1, (attention.num_heads, -1))
    output = attention.out_proj.weight.unflatten(1, (attention.num_heads, -1))
    return torch.einsum("shd,ohd->hso", value, output).norm(dim=-1)


def _word_rows(heard: Heard, rows: Tensor) -> Tensor:
    """Return the mean over each word's tokens of (T, S)."""
    rows = rows[-len(heard.ids) :]
    return torch.stack([rows[word].mean(0) for word in heard.words])


def mean_attention(heard: Heard) -> Tensor:
    return _word_rows(heard, record(heard).cross.mean((0, 1)))


def last_attention(heard: Heard) -> Tensor:
    return _word_rows(heard, record(heard).cross[-1].mean(0))


def alignment_heads(heard: Heard) -> Tensor:
    layers, heads = zip(*ALIGNMENT_HEADS, strict=True)
    return _word_rows(heard, record(heard).cross[list(layers), list(heads)].mean(0))


def value_norms(heard: Heard) -> Tensor:
    recorded = record(heard)
    return _word_rows(heard, (recorded.cross * recorded.norms[:, :, None]).sum((0, 1)))


def rollout(heard: Heard) -> Tensor:
    """Return rollout through the decoder, whose layers pass half of a token's relevance to frames."""
    recorded = record(heard)
    relevance = torch.eye(recorded.own.shape[-1])
    frames = torch.zeros(len(relevance), recorded.cross.shape[-1])
    for own, cross in zip(reversed(recorded.own.mean(1)), reversed(recorded.cross.mean(1)), strict=True):
        frames += relevance @ cross / 2
        relevance = torch.lerp(relevance / 2, relevance @ own / 2, 0.5)
    return _word_rows(heard, frames)


def gradient_times_input(heard: Heard) -> Tensor:
    return _from_gradients(heard, lambda states, gradient: (states * gradient).sum(1))


def grad_cam(heard: Heard) -> Tensor:
    return _from_gradients(heard, lambda states, gradient: states @ gradient.mean(0))


def _from_gradients(heard: Heard, formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    states, scores = record(heard).states, record(heard).scores
    gradients = [torch.autograd.grad(score, states, retain_graph=True)[0][0] for score in scores]
    return torch.stack([formula(heard.states[0], gradient) for gradient in gradients])


def hiding(heard: Heard) -> Tensor:
    """Return the loss of log-odds if a tenth of a second is hidden, one after the other."""
    blocks = torch.arange(heard.frames) // BLOCK
    shown = torch.cat([torch.ones(1, heard.frames).bool(), blocks != torch.arange(int(blocks[-1]) + 1)[:, None]])
    scores = torch.stack([heard.scores(shown, word) for word in range(len(heard.words))])
    return F.pad((scores[:, :1] - scores[:, 1:])[:, blocks], (0, heard.states.shape[1] - heard.frames))


def focus_by_size(heard: Heard) -> Tensor:
    """Return focus (W, S) with the size of the evidence in place of its positive part."""
    return focus_attention(size(heard), value_norms(heard))


def focus_on_rollout(heard: Heard) -> Tensor:
    """Return focus (W, S) with rollout in place of attention × value norm."""
    return focus_attention(evidence(heard), rollout(heard))


def random_map(heard: Heard) -> Tensor:
    return torch.rand(len(heard.words), heard.states.shape[1], generator=torch.Generator().manual_seed(heard.frames))


def smooth_map(heard: Heard) -> Tensor:
    """Return random maps whose values change over a third of a second."""
    coarse = random_map(heard)[:, None, : heard.states.shape[1] // 16]
    return F.interpolate(coarse, heard.states.shape[1], mode="linear")[:, 0]


def uniform(heard: Heard) -> Tensor:
    return torch.ones(len(heard.words), heard.states.shape[1])


WARPED: dict[str, Callable[[Recorded], Tensor]] = {  # attention (heads, T, S) that is warped
    "warped: alignment heads": lambda recorded: recorded.cross[tuple(zip(*ALIGNMENT_HEADS, strict=True))],
    "warped: mean of layers": lambda recorded: recorded.cross.flatten(0, 1),
    "warped: last layer": lambda recorded: recorded.cross[-1],
}


def warped_times(heard: Heard, attention: Tensor) -> Tensor:
    """Return seconds (W, 2) of each word by dynamic time warping, as Whisper's own word times are made."""
    matrix = attention[..., -len(heard.ids) :, : heard.frames]
    matrix = (matrix - matrix.mean(-2, keepdim=True)) / matrix.std(-2, keepdim=True, unbiased=False)
    width = heard.model.config.median_filter_width
    matrix = whisper._median_filter(matrix[None], width)[0].mean(0)
    tokens, frames = whisper._dynamic_time_warping(-matrix.double().numpy())
    starts = torch.from_numpy(frames[np.searchsorted(tokens, range(len(matrix)))])
    starts = torch.cat([starts, torch.tensor([heard.frames])])
    return FRAME * torch.stack([starts[[word.start, word.stop]] for word in heard.words])


METHODS: dict[str, tuple[Callable[[Heard], Tensor], str]] = {  # with decoder passes, forward + backward
    "answer evidence": (evidence, "1 + 1"),
    "focus of the answer": (focus, "1 + 1"),
    "focus by size of the evidence": (focus_by_size, "1 + 1"),
    "focus on rollout": (focus_on_rollout, "1 + 1"),
    "size of the evidence": (size, "1 + 1"),
    "attention × value norm": (value_norms, "1"),
    "cross-attention, mean of layers": (mean_attention, "1"),
    "cross-attention, last layer": (last_attention, "1"),
    "cross-attention, alignment heads": (alignment_heads, "1"),
    "attention rollout": (rollout, "1"),
    "gradient × input": (gradient_times_input, "1 + W"),
    "Grad-CAM": (grad_cam, "1 + W"),
    "hiding tenths of a second": (hiding, "10 a second"),
    "smooth random map": (smooth_map, "0"),
    "random map": (random_map, "0"),
    "uniform map": (uniform, "0"),
}


def is_in_word(heard: Heard) -> Tensor:
    """Return the mask (W, S) of the frames whose middle is in the word's time."""
    middles = (torch.arange(heard.states.shape[1]) + 0.5) * FRAME
    starts, ends = torch.from_numpy(heard.speech.times).T[..., None]
    return (starts <= middles) & (middles < ends)


def in_time(heard: Heard, relevance: Tensor) -> Tensor:
    """Return each word's share of positive relevance in its own time; of no relevance, that of a uniform map."""
    positive, inside = relevance.clamp(min=0), is_in_word(heard)
    positive = torch.where(positive.sum(1, keepdim=True) > 0, positive, 1)
    return (positive * inside).sum(1) / positive.sum(1)


def is_peak(heard: Heard, relevance: Tensor) -> Tensor:
    """Return 1 for each word whose largest value is in its own time, else 0."""
    return is_in_word(heard).gather(1, relevance.argmax(1, keepdim=True))[:, 0].double()


def order(heard: Heard, relevance: Tensor, words: Sequence[int]) -> Tensor:
    """Return some words' log-odds with their first frames shown minus with them hidden, mean over steps."""
    ranks = relevance[:, : heard.frames].argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    shares = torch.arange(1, STEPS + 1) / (STEPS + 1)
    shown = ranks[:, None] < (shares * heard.frames)[:, None]  # (W, steps, frames)
    scores = [heard.scores(torch.cat([shown[word], ~shown[word]]), word) for word in words]
    return torch.stack(scores).unflatten(1, (2, STEPS)).diff(dim=1).neg().mean((1, 2))


def within_borders(heard: Heard, times: Tensor) -> dict[str, list[float]]:
    """Return 1 for each border of a word within some milliseconds of the known one, else 0, by column of the table."""
    errors = (times - torch.from_numpy(heard.speech.times)).abs().flatten()
    return {f"{1000 * border:.0f} ms": (errors <= border).double().tolist() for border in BORDERS}


def measure(folder: Path, sentences: int, noise: float | None) -> str:
    """Return the table of all methods."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind, heard in draw_heard(model, processor, sentences, noise):
        for name, (method, _) in METHODS.items():
            relevance = method(heard).detach().float()
            values[name, f"time, {kind}"] += in_time(heard, relevance).tolist()
            values[name, f"peak, {kind}"] += is_peak(heard, relevance).tolist()
            _extend(values, name, within_borders(heard, word_spans(relevance[:, : heard.frames], FRAME) * FRAME))
            values[name, f"order, {kind}"] += order(heard, relevance, ORDERED_WORDS).tolist()
        for name, choose in WARPED.items():
            _extend(values, name, within_borders(heard, warped_times(heard, choose(record(heard)))))
    return tables(values)


def _extend(values: dict[tuple[str, str], list[float]], name: str, columns: Mapping[str, list[float]]) -> None:
    for column, numbers in columns.items():
        values[name, column] += numbers


def tables(values: Mapping[tuple[str, str], list[float]]) -> str:
    """Return a table of the values of each (method, column)."""
    columns = sorted({column for _, column in values})
    passes = {name: passes for name, (_, passes) in METHODS.items()} | dict.fromkeys(WARPED, "1")
    rows = [(name, *(_mean(values[name, column]) for column in columns), passes[name]) for name in passes]
    counts = ", ".join(f"{column}: {len(values['random map', column])}" for column in columns)
    return f"{table(('method', *columns, 'passes'), rows)}\n\nNumbers of words or borders: {counts}."


def _mean(values: list[float]) -> str:
    numbers = torch.tensor(values, dtype=torch.float64)
    return f"{float(numbers.mean()):.3f} ± {float(margin(numbers)):.3f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_sounds", description="Measure known sounds.")
    parser.add_argument("--model", type=Path, metavar="FOLDER", required=True, help="a Whisper tiny.en")
    parser.add_argument("--sentences", type=int, default=20, metavar="N", help="spoken (default: %(default)s)")
    parser.add_argument("--noise", type=float, metavar="DB", help="decibels of the speech above white noise")
    arguments = parser.parse_args()
    print(measure(arguments.model, arguments.sentences, arguments.noise))


if __name__ == "__main__":
    main()
