"""Spoken sentences as Whisper gets them, and their words' scores with frames of the sound hidden."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.spoken import RATE, VOICES, Speaker, Speech, add_noise, make_sentence
from captum_gmar.attr.scores import log_odds
from captum_gmar.vlm.words import group_words, token_texts

FRAME = 0.02  # seconds
KINDS = ("pauses", "running")
FIRST_RUNNING = 40  # seed


@dataclass(frozen=True, eq=False)
class Heard:
    """A sentence as the recogniser gets it.

    Attributes:
        model: Whisper.
        states: (1, S, width) output of the encoder.
        silence: (width,) mean output for silence, which hidden frames get.
        ids: tokens before and of the sentence.
        words: tokens of each word, counted from the sentence's first.
        speech: the sentence.
    """

    model: Any
    states: Tensor
    silence: Tensor
    prefix: tuple[int, ...]
    ids: tuple[int, ...]
    words: tuple[slice, ...]
    speech: Speech

    @property
    def frames(self) -> int:
        """Number of frames that have sound."""
        return round(len(self.speech.samples) / RATE / FRAME)

    @property
    def decoder_ids(self) -> Tensor:
        return torch.tensor([[*self.prefix, *self.ids[:-1]]])

    def by_word(self, tokens: Tensor) -> Tensor:
        """Sum (..., T) of tokens to words (..., W)."""
        return torch.stack([tokens[..., word].sum(-1) for word in self.words], -1)

    def scores(self, shown: Tensor, word: int) -> Tensor:
        """Return log-odds (N,) of a word if only some frames of the sound are shown, (N, frames)."""
        end = self.words[word].stop
        bias = F.pad(torch.zeros(shown.shape).masked_fill(~shown, -torch.inf), (0, self.states.shape[1] - self.frames))
        bias = torch.cat([bias, (~shown).sum(1, keepdim=True).float().log()], 1)
        states = torch.cat([self.states, self.silence.expand(1, 1, -1)], 1).expand(len(shown), -1, -1)
        ids = self.decoder_ids[:, : len(self.prefix) + end - 1].expand(len(shown), -1)
        with torch.no_grad(), _HiddenFrames(bias):
            hidden = self.model.model.decoder(ids, encoder_hidden_states=states, use_cache=False)[0]
            rows = hidden[:, self.words[word].start - end :]
            logits = self.model.proj_out(rows).flatten(0, 1)
        chosen = log_odds(logits).view(*rows.shape[:2], -1)
        return chosen[:, range(rows.shape[1]), self.ids[self.words[word]]].sum(1)


class _HiddenFrames(TorchFunctionMode):
    """Mode that adds a bias (N, S) to cross-attention, whose keys and values all N sequences share."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = bias

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.contiguous and args[0].stride(0) == 0:
            return args[0]
        if func is F.linear and args[0].stride(0) == 0:
            return func(args[0][:1], *args[1:], **kwargs).expand(len(args[0]), -1, -1)
        if func is F.scaled_dot_product_attention and args[1].shape[-2] == self.bias.shape[-1]:
            query, key, value = args[:3]
            bias = self.bias.repeat_interleave(query.shape[2], 0)
            rows = query.transpose(0, 1).flatten(1, 2)[None]  # (1, H, N T, D)
            output = func(rows, key[:1], value[:1], attn_mask=bias[None, None], scale=kwargs.get("scale"))
            return output[0].unflatten(1, (len(query), -1)).transpose(0, 1)
        return func(*args, **kwargs)


def draw_heard(model: Any, processor: Any, sentences: int, noise: float | None) -> Iterator[tuple[str, Heard]]:
    """Yield sentences with their kind, with noise so many decibels below the speech."""
    speaker, tokenizer = Speaker(), processor.tokenizer
    silence = encode(model, processor, np.zeros(RATE))[0].mean(0)
    for number in range(sentences):
        seed = FIRST_RUNNING * (number % 2) + number // 2
        speak = (speaker.paced, speaker.running)[number % 2]
        speech = speak(make_sentence(seed), VOICES[seed % 2])
        if noise is not None:
            speech = add_noise(speech, noise, seed)
        ids = tokenizer(f" {speech.text}", add_special_tokens=False)["input_ids"]
        words = group_words(token_texts(tokenizer, ids))[: len(speech.words)]
        prefix = model.generation_config.decoder_start_token_id, tokenizer.convert_tokens_to_ids("<|notimestamps|>")
        states = encode(model, processor, speech.samples)
        yield KINDS[number % 2], Heard(model, states, silence, prefix, tuple(ids), tuple(words), speech)


@torch.no_grad()
def encode(model: Any, processor: Any, samples: Any) -> Tensor:
    """Return the encoder's output (1, S, width)."""
    features = processor.feature_extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
    states: Tensor = model.get_encoder()(features).last_hidden_state
    return states
