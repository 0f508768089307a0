"""Where the words of a model that answers come from, on scenes where it is known: each word's own object.

    python -m benchmarks.known_words --scenes 100 --faithful 20

asks the built-in model, or one that the training wrote (--model), about scenes that it was not trained on, and writes
tables in Markdown. They hold, for every method, the share of positive relevance on the object of which the word speaks,
where a patch counts by its area on the object; how often the largest value is on a patch that touches the object; for
the first scenes the order of patches (log-odds of the word with the first patches shown, less with them hidden, mean
over steps); and passes through the model for an answer of W words.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from captum_gmar import AnswerEvidence
from captum_gmar.attr.scores import log_odds
from captum_gmar.classifier.vision_task import load_answering
from captum_gmar.demo import load_answering_model, load_answering_processor
from captum_gmar.demo.patches import GRID, PATCH, patch_shares
from captum_gmar.demo.scenes import Scene, make_scene
from captum_gmar.files.markdown import table
from captum_gmar.vlm.attribution import AnswerAttribution, focus_attention
from tools.answering_model.questions import SceneQuestion, questions_of
from tools.demo_model.localisation import scene_mean

FIRST_SEED = 700_000
KINDS = ("shape", "texture", "relation")
STEPS = 7  # in which patches are shown or hidden
PATCHES = GRID * GRID
GREY = 128  # of 255, of what is hidden


class Asked(NamedTuple):
    """A question about a picture, with its answer, as the model takes them."""

    model: Any  # whose attention is written out
    pixel_values: Tensor  # (1, 3, height, width)
    prompt: Tensor  # (1, tokens)
    answer: Tensor  # (W + 1,) ids, the last of which ends it

    @property
    def words(self) -> int:
        return len(self.answer) - 1

    def scores(self, pixel_values: Tensor) -> Tensor:
        """(N, W) log-odds of the words, for pictures (N, 3, height, width)."""
        ids = torch.cat([self.prompt, self.answer[None, : self.words - 1]], 1).expand(len(pixel_values), -1)
        with torch.no_grad():
            logits = self.model(input_ids=ids, pixel_values=pixel_values).logits[:, -self.words :]
        return torch.stack([log_odds(logits[:, row])[:, self.answer[row]] for row in range(self.words)], 1)


@lru_cache(maxsize=1)
def explain(asked: Asked) -> AnswerAttribution:
    inputs = {"input_ids": asked.prompt, "pixel_values": asked.pixel_values}
    return AnswerEvidence(asked.model).attribute(inputs, asked.answer[:-1])


def evidence(asked: Asked) -> Tensor:
    """(W, P) of the library."""
    return explain(asked).picture_relevance().flatten(1)


def size(asked: Asked) -> Tensor:
    """(W, P) evidence without its sign."""
    return evidence(asked).abs()


def focus(asked: Asked) -> Tensor:
    """(W, P) of the library."""
    return explain(asked).focus().flatten(1)


def focus_by_size(asked: Asked) -> Tensor:
    """(W, P): focus with the size of the evidence in place of its positive part."""
    return focus_attention(size(asked), value_norms(asked))


def focus_by_effects(asked: Asked) -> Tensor:
    """(W, P): focus with the effects of hiding image tokens from the words' rows in place of evidence."""
    return focus_attention(masked_effects(asked), value_norms(asked))


def masked_effects(asked: Asked, masks: int = 32) -> Tensor:
    """(W, P): ridge regression of the words' log-odds on random halves of the image tokens and their complements."""
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randperm(PATCHES, generator=generator) < PATCHES // 2 for _ in range(masks // 2)]
    shown = torch.stack([*halves, *(~half for half in halves)])
    ids = torch.cat([asked.prompt, asked.answer[None, : asked.words - 1]], 1)
    is_seen = torch.ones(masks, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    is_seen[:, 0, -asked.words :, :PATCHES] &= shown[:, None]
    mask = torch.zeros(is_seen.shape).masked_fill(~is_seen, torch.finfo(torch.float32).min)
    inner = asked.model.model
    with torch.no_grad():
        embedded = inner.get_input_embeddings()(ids).clone()
        embedded[0, :PATCHES] = inner.get_image_features(asked.pixel_values).pooler_output[0]
        run = inner.language_model(inputs_embeds=embedded.expand(masks, -1, -1), attention_mask=mask, use_cache=False)
        logits = asked.model.lm_head(run.last_hidden_state[:, -asked.words :])
    scores = torch.stack([log_odds(logits[:, row])[:, asked.answer[row]] for row in range(asked.words)], 1).double()
    signs = shown.double() - 0.5
    products = signs @ signs.T
    ridge = products.diagonal().mean() * torch.eye(masks, dtype=torch.float64)
    return (signs.T @ torch.linalg.solve(products + ridge, scores - scores.mean(0))).T.float()


def value_norms(asked: Asked) -> Tensor:
    """(W, P): attention × value norm, summed over layers and heads."""
    result = explain(asked)
    assert result.pictures is not None
    assert result.attended is not None
    return result.pictures[0].map(result.attended).flatten(1)


class Recorded(NamedTuple):
    """One pass, with gradients: attention (L, H, S, S), the states (L + 1, S, width), and the words' log-odds (W,)."""

    attention: Tensor
    states: tuple[Tensor, ...]
    scores: Tensor


@lru_cache(maxsize=1)
def record(asked: Asked) -> Recorded:
    """Run a pass with all attention in memory, which the methods that read it share."""
    ids = torch.cat([asked.prompt, asked.answer[None, : asked.words - 1]], 1)
    inner = asked.model.model
    with torch.no_grad():
        seen = inner.get_image_features(asked.pixel_values).pooler_output[0]
    embedded = inner.get_input_embeddings()(ids).detach().clone()
    embedded[0, :PATCHES] = seen
    out = inner.language_model(
        inputs_embeds=embedded.requires_grad_(), output_attentions=True, output_hidden_states=True, use_cache=False
    )
    logits = asked.model.lm_head(out.last_hidden_state[0, -asked.words :])
    scores = log_odds(logits)[range(asked.words), asked.answer[:-1]]
    return Recorded(torch.cat(out.attentions).detach(), out.hidden_states, scores)


def raw_attention(asked: Asked) -> Tensor:
    """(W, P): of the last layer, mean of heads."""
    return record(asked).attention[-1].mean(0)[-asked.words :, :PATCHES]


def mean_attention(asked: Asked) -> Tensor:
    """(W, P): mean of layers and heads."""
    return record(asked).attention.mean((0, 1))[-asked.words :, :PATCHES]


def rollout(asked: Asked) -> Tensor:
    """(W, P): the layers' product of attention, mean of heads, half of it the residual stream (Abnar and Zuidema)."""
    attention = record(asked).attention.mean(1)
    joint = torch.eye(attention.shape[-1])
    for layer in attention:
        joint = (layer + torch.eye(len(layer))) / 2 @ joint
    return joint[-asked.words :, :PATCHES]


def gradient_times_input(asked: Asked) -> Tensor:
    """(W, P): of what the decoder gets of each patch, summed over channels."""
    return _from_gradients(asked, 0, lambda states, gradient: (states * gradient).sum(1))


def grad_cam(asked: Asked) -> Tensor:
    """(W, P): of the states of the patches in the middle of the decoder (Selvaraju et al.)."""
    layer = asked.model.config.text_config.num_hidden_layers // 2
    return _from_gradients(asked, layer, lambda states, gradient: states @ gradient.mean(0))


def _from_gradients(asked: Asked, layer: int, formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    recorded = record(asked)
    maps = []
    for score in recorded.scores:
        (gradient,) = torch.autograd.grad(score, recorded.states[layer], retain_graph=True)
        maps.append(formula(recorded.states[layer][0, :PATCHES].detach(), gradient[0, :PATCHES]))
    return torch.stack(maps)


def perturbation(asked: Asked, segments: Tensor | None = None) -> Tensor:
    """(W, P): what the log-odds lose if a patch is grey, one patch after the other, as Captum's FeatureAblation does;
    or (W, segments) of the segments that a map (height, width) numbers."""
    if segments is None:
        segments = torch.arange(PATCHES).view(GRID, GRID).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    is_hidden = segments == torch.arange(int(segments.max()) + 1)[:, None, None]
    hidden = torch.where(is_hidden[:, None], GREY / 127.5 - 1, asked.pixel_values)
    return (asked.scores(asked.pixel_values) - asked.scores(hidden)).T


def nothing(asked: Asked) -> Tensor:
    """(W, P): random, for comparison."""
    return torch.rand(asked.words, PATCHES, generator=torch.Generator().manual_seed(len(asked.prompt[0])))


def smooth_map(asked: Asked) -> Tensor:
    """(W, P): random over some four patches each way, for comparison."""
    coarse = nothing(asked)[:, None, : 4 * 4].unflatten(-1, (4, 4))
    return F.interpolate(coarse, (GRID, GRID), mode="bilinear").flatten(1)


def uniform(asked: Asked) -> Tensor:
    """(W, P): ones, for comparison."""
    return torch.ones(asked.words, PATCHES)


METHODS: dict[str, tuple[Callable[[Asked], Tensor], str]] = {  # with passes, forward + backward, for W words
    "answer evidence": (evidence, "1 + 1"),
    "focus of the answer": (focus, "1 + 1"),
    "focus by size of the evidence": (focus_by_size, "1 + 1"),
    "focus by effects of 32 masks": (focus_by_effects, "34 + 1"),
    "size of the evidence": (size, "1 + 1"),
    "attention × value norm": (value_norms, "1"),
    "raw attention, last layer": (raw_attention, "1"),
    "raw attention, mean of layers": (mean_attention, "1"),
    "attention rollout": (rollout, "1"),
    "gradient × input": (gradient_times_input, "1 + W"),
    "Grad-CAM": (grad_cam, "1 + W"),
    "perturbation": (perturbation, f"{PATCHES + 1}"),
    "smooth random map": (smooth_map, "0"),
    "random map": (nothing, "0"),
    "uniform map": (uniform, "0"),
}


def ask(model: Any, processor: Any, scene: Scene, question: SceneQuestion) -> Asked:
    """Return the question with its right answer."""
    inputs = processor(
        images=Image.fromarray(scene.image), text=processor.image_token + question.prompt, return_tensors="pt"
    )
    answer = processor.tokenizer(question.answer, add_special_tokens=False)["input_ids"]
    end = [processor.tokenizer.eos_token_id]
    return Asked(model, inputs["pixel_values"], inputs["input_ids"], torch.tensor(answer + end))


def is_right(asked: Asked) -> bool:
    """Return True if the model gives this answer itself, word by word."""
    ids = torch.cat([asked.prompt, asked.answer[None, :-1]], 1)
    with torch.no_grad():
        logits = asked.model(input_ids=ids, pixel_values=asked.pixel_values).logits[0, -len(asked.answer) :]
    return torch.equal(logits.argmax(1), asked.answer)


def draw_asked(model: Any, processor: Any, scenes: int) -> Iterator[tuple[Scene, SceneQuestion, Asked]]:
    """Draw scenes of two objects with every question whose answer is an object and that the model answers rightly."""
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        scene = make_scene(seed, 2)
        for question in questions_of(scene):
            asked = ask(model, processor, scene, question)
            if question.answer != "nothing" and is_right(asked):
                yield scene, question, asked


def on_objects(relevance: Tensor, scene: Scene, question: SceneQuestion) -> Iterator[tuple[str, float, float]]:
    """Yield the kind of each word that speaks of objects, the share of its positive relevance on them, where a patch
    counts by its area on them, and 1 if its largest value is on a patch that touches them, else 0."""
    for word, values in zip(question.words, relevance.clamp(min=0), strict=True):
        if word.objects:
            on_object = patch_shares(scene.masks[list(word.objects)].sum(0) > 0)
            total = float(values.sum())
            share = float(values @ on_object) / total if total else float(on_object.mean())
            yield word.kind, share, float(on_object[values.argmax()] > 0)


def sharpen(relevance: Tensor, patches: float = 12) -> Tensor:
    """Return the power of each positive map, as shares, whose entropy is that of so many equal patches."""
    logs = relevance.clamp(min=0).double().log()
    low, high = torch.full((len(logs), 1), 0.05), torch.full((len(logs), 1), 30.0)
    for _ in range(40):
        power = (low + high) / 2
        shares = torch.softmax(power * logs.nan_to_num(neginf=-1e6), 1)
        is_wide = torch.special.entr(shares).sum(1, keepdim=True).exp() > patches
        low, high = power.where(is_wide, low), power.where(~is_wide, high)
    return shares.float()


def faithfulness(relevance: Tensor, question: SceneQuestion, asked: Asked) -> Iterator[float]:
    """Return the log-odds of each word about objects with the first patches shown, less those with them hidden."""
    for row, (word, values) in enumerate(zip(question.words, relevance, strict=True)):
        if word.objects:
            ranks = values.argsort(descending=True, stable=True).argsort()
            shown = torch.stack([ranks < PATCHES * (step + 1) // (STEPS + 1) for step in range(STEPS)])
            pixels = shown.view(-1, 1, GRID, GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
            seen = [torch.where(part, asked.pixel_values, GREY / 127.5 - 1) for part in (pixels, ~pixels)]
            scores = asked.scores(torch.cat(seen))[:, row]
            yield float((scores[:STEPS] - scores[STEPS:]).mean())


def measure(folder: Path | None, scenes: int, faithful: int) -> str:
    """Measure the tables of all methods, for the model in a folder or the built-in one.

    Args:
        folder: of the model; None: the built-in one.
        scenes: how many.
        faithful: of how many of them the order of patches is measured.
    """
    model, processor = load_answering(folder) if folder else (load_answering_model(), load_answering_processor())
    model.set_attn_implementation("eager")
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    peaks: dict[tuple[str, str], list[float]] = defaultdict(list)
    sharp: dict[tuple[str, str], list[float]] = defaultdict(list)
    gains: dict[str, list[float]] = defaultdict(list)
    answers = 0
    for scene, question, asked in draw_asked(model, processor, scenes):
        answers += 1
        for name, (method, _) in METHODS.items():
            relevance = method(asked).detach()
            for kind, share, peak in on_objects(relevance, scene, question):
                shares[name, kind].append(share)
                peaks[name, kind].append(peak)
            for kind, share, _ in on_objects(sharpen(relevance), scene, question):
                sharp[name, kind].append(share)
            if scene.seed < FIRST_SEED + faithful:
                gains[name] += faithfulness(relevance, question, asked)
    header = ("method", *(f"{kind} words" for kind in KINDS))
    by_area, sharpened, at_peak = (
        [(name, *(str(scene_mean(values[name, kind])) for kind in KINDS)) for name in METHODS]
        for values in (shares, sharp, peaks)
    )
    orders = [(name, f"{scene_mean(gains[name]):.2f}", passes) for name, (_, passes) in METHODS.items()]
    words = ", ".join(f"{len(shares['random map', kind])} {kind}" for kind in KINDS)
    return "\n\n".join(
        (
            f"{answers} right answers about {scenes} scenes; words: {words}. On the object, by area:",
            table(header, by_area),
            "The same at one sharpness, that of 12 equal patches:",
            table(header, sharpened),
            "Largest value on a patch that touches it:",
            table(header, at_peak),
            f"The order of patches, of {len(gains['random map'])} words in {faithful} scenes:",
            table(("method", "shown less hidden", "passes"), orders),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_words", description="Measure known words.")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="that the training wrote (default: built in)")
    parser.add_argument("--scenes", type=int, default=40, metavar="N", help="of two objects (default: %(default)s)")
    parser.add_argument("--faithful", type=int, default=10, metavar="N", help="of them in order (default: %(default)s)")
    arguments = parser.parse_args()
    print(measure(arguments.model, arguments.scenes, arguments.faithful))


if __name__ == "__main__":
    main()
