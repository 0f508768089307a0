"""Train a classifier of what moves where, on one thread: `python -m tools.video_model.train --output folder`.

Clips of one and two moving figures, with a throw-away head that asks every tube what moves through it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import VideoMAEForVideoClassification

from captum_gmar.demo.scene_localisation import SceneMean, scene_mean
from tools.demo_model.fitting import Stage, descend
from tools.demo_model.gradients import class_loss
from tools.judge_model.optimizing import build_optimizers
from tools.video_model.clips import DIRECTIONS, FRAMES, SIDE, Clip, make_clip
from tools.video_model.network import PATCH, TUBE, WIDTH, build_video_model

FIRST_SEED: Final = 1_000_000  # clips of smaller seeds are never trained on
STAGE: Final = Stage(side=SIDE // PATCH, scenes=8_000, steps=2_500, batch_size=32, rates=(3e-3, 1e-5))
_REPORT_EVERY: Final = 200  # steps


def clip_values(clips: Iterable[Clip]) -> Tensor:
    """Return the pixel values of clips, (N, frames, 3, height, width), from -1 to 1."""
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    return (frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1).contiguous()


def tube_shares(mask: NDArray[np.bool_]) -> Tensor:
    """Return the share of each tube that lies in a mask (frames, height, width), (time, rows, columns)."""
    cut = torch.from_numpy(mask).float().unfold(0, TUBE, TUBE).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    return cut.mean((3, 4, 5))


def train(output: Path, seed: int, stage: Stage) -> None:
    """Train a model and write it into a folder."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    clips = [make_clip(FIRST_SEED + index, 1 + index % 2) for index in range(stage.scenes)]
    model, head = build_video_model().train(), nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(DIRECTIONS) + 1))
    generator = torch.Generator().manual_seed(seed)

    def draw_loss() -> Tensor:
        chosen = torch.randint(len(clips), (stage.batch_size,), generator=generator).tolist()
        return _loss(model, head, [clips[index] for index in chosen])

    for step, loss in enumerate(descend(build_optimizers(model, head), stage, draw_loss), 1):
        if step % _REPORT_EVERY == 0:
            print(f"step {step}  {time.perf_counter() - began:.0f} s  loss {loss:.3f}", flush=True)
    model.eval().save_pretrained(output)
    for moving in (1, 2):
        print(f"{moving} moving: {accuracy(model, moving, range(500_000, 501_000))} right", flush=True)


def _loss(model: VideoMAEForVideoClassification, head: nn.Module, clips: list[Clip]) -> Tensor:
    output = model(clip_values(clips), output_hidden_states=True)
    targets = torch.zeros(len(clips), len(DIRECTIONS))
    for row, clip in zip(targets, clips, strict=True):
        row[list(clip.labels)] = 1 / len(clip.labels)
    answers = head(output.hidden_states[-1]).transpose(1, 2)  # (N, answers, tubes)
    return class_loss(output.logits, targets) + _tube_loss(answers, torch.stack([_answers(clip) for clip in clips]))


def _answers(clip: Clip) -> Tensor:
    """Return the share of each direction in each tube, and that of nothing that moves, (answers, tubes)."""
    shares = torch.zeros(len(DIRECTIONS) + 1, FRAMES // TUBE * (SIDE // PATCH) ** 2)
    for label, mask in zip(clip.labels, clip.masks, strict=True):
        shares[label] = tube_shares(mask).flatten()
    shares[-1] = 1 - shares.sum(0)
    return shares


def _tube_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy, in which tubes that something moves through weigh as much as the others."""
    entropy = functional.cross_entropy(logits, targets, reduction="none")
    moves = targets[:, -1] < 0.9
    return (entropy[moves].mean() + entropy[~moves].mean()) / 2


@torch.no_grad()
def accuracy(model: VideoMAEForVideoClassification, moving: int, seeds: Iterable[int]) -> SceneMean:
    """Return how often the directions of a clip's k moving figures are exactly the k top-ranked classes."""
    hits = []
    for seed in seeds:
        clip = make_clip(seed, moving)
        ranked = model(clip_values([clip])).logits[0].topk(moving).indices.tolist()
        hits.append(float(set(ranked) == set(clip.labels)))
    return scene_mean(hits)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.video_model.train", description="Train a video model.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("video-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(arguments.output, arguments.seed, STAGE)


if __name__ == "__main__":
    main()
