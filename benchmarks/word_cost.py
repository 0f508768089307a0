"""What explaining every word of an answer costs, beside one pass forward and backward over the whole sequence.

    python -m benchmarks.word_cost [--measure ROUNDS]

A count, not a measurement (see benchmarks/counting.py): models of full size in bfloat16, of random weights that are not
even made. With --measure, times of all but the largest on the processor at hand. The pass that it is compared with
takes the sum of the words' log-odds back to what the decoder gets, and keeps nothing for the gradients of weights.
Memory is that of all tensors that are alive at once, but for the model's weights; what is inside one operation is not
seen.
"""

import argparse
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from benchmarks.counting import DEVICE, Count, Counting, as_on_a_gpu, kernels
from captum_gmar.attr.scores import log_odds
from captum_gmar.files.markdown import table
from captum_gmar.vlm.decoder_pass import explain_last_rows
from captum_gmar.vlm.word_scores import word_scores

WORDS = 64  # tokens of the answer
PROMPT = 40  # tokens beside the picture's
IMAGE = 0  # token
SIZES: dict[str, Callable[[], Any]] = {
    "0.5 billion parameters": partial(
        Qwen2Config,
        **{"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
        **{"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "7 billion parameters": partial(LlamaConfig, vocab_size=32064),
    "tiny": partial(
        LlamaConfig,
        **{"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4},
        **{"num_attention_heads": 4},
    ),
}


class Held(TorchDispatchMode):
    """Within the block, how many bytes tensors made in it take at most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf.untyped_storage() for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and all(leaf.untyped_storage() is not other for other in given):
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: Any) -> None:
        if storage not in self._known:
            self._known[storage] = True
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, size: int) -> None:
        self._now -= size


class Cost(NamedTuple):
    """Of one call."""

    count: Count
    peak: int  # bytes


def cost(call: Callable[[], object]) -> Cost:
    """Count a call on tensors of DEVICE."""
    counting, held = Counting(), Held()
    with as_on_a_gpu(), kernels(counting, with_kernel=True), counting, held:
        call()
    return Cost(counting.count, held.peak)


class Subject:
    """A model of random weights, and an answer about a picture of 576 image tokens."""

    def __init__(self, size: str, device: str = DEVICE) -> None:
        vision = SiglipVisionConfig(image_size=384, patch_size=16)
        config = LlavaConfig(
            text_config=SIZES[size](),
            vision_config=vision,
            image_token_index=IMAGE,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )
        with torch.device(device):
            self.model = LlavaForConditionalGeneration(config).bfloat16().eval().requires_grad_(False)
            ids = torch.ones(1, 576 + PROMPT + WORDS - 1, dtype=torch.long)
            ids[:, :576] = IMAGE
            pixel_values = torch.zeros(1, 3, vision.image_size, vision.image_size, dtype=torch.bfloat16)
        self.mask = torch.ones_like(ids)
        self.with_answer = {"input_ids": ids, "pixel_values": pixel_values, "attention_mask": self.mask}
        self.answer = list(range(1, WORDS + 1))

    def own(self) -> None:
        """Forward and backward over the whole sequence."""
        with torch.no_grad():
            embedded = self.model.get_input_embeddings()(self.with_answer["input_ids"])
            self.model.get_image_features(self.with_answer["pixel_values"])
        embedded.requires_grad_()
        logits = self.model(inputs_embeds=embedded, attention_mask=self.mask, use_cache=False).logits[0, -WORDS:]
        scores = log_odds(logits)[range(WORDS), self.answer]
        torch.autograd.grad(scores.sum(), embedded)

    def explain(self) -> None:
        """All words."""
        explain_last_rows(self.model, self.with_answer, WORDS, partial(word_scores, ids=self.answer, contrast=None))


def times(size: str, rounds: int) -> str:
    """Time a model of random weights on the CPU: medians of processor time, in turns."""
    torch.manual_seed(0)
    subject = Subject(size, "cpu")
    calls = {"own": subject.own, "explain": subject.explain}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first is for warming up
        for name, call in calls.items():
            started = time.process_time()
            call()
            seconds[name] += [time.process_time() - started] if turn else []
    own, explained = (statistics.median(seconds[name]) for name in calls)
    return f"{size}: {explained / own:.2f} × the own pass of {own:.1f} s, measured over {rounds} rounds"


def measure(sizes: Sequence[str]) -> str:
    """Measure the table of models."""
    rows = []
    for size in sizes:
        subject = Subject(size)
        own, explained = cost(subject.own), cost(subject.explain)
        rows.append(
            (
                size,
                f"{explained.count.seconds / own.count.seconds:.2f} ×",
                f"{explained.count.flops / own.count.flops:.2f} ×",
                f"{explained.peak / own.peak:.2f} ×",
                f"{explained.peak / 2**20:.0f} MiB",
                f"{own.peak / 2**20:.0f} MiB",
            )
        )
    return table(("model", "time", "products", "memory", "at most", "own"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.word_cost", description=__doc__)
    parser.add_argument("--measure", type=int, metavar="ROUNDS", help="measure times here, without the largest")
    rounds = parser.parse_args(arguments).measure
    if rounds is None:
        print(measure(list(SIZES)))
    else:
        print(*(times(size, rounds) for size in SIZES if not size.startswith("7 ")), sep="\n")


if __name__ == "__main__":
    main()
