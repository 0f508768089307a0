"""Train a classifier of what moves where, on one thread: `python -m tools.video_model.train --output folder`.

Clips of one and two moving figures, with a throw-away head that asks every tube what moves through it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from tools.demo_model.localisation import SceneMean, scene_mean
from tools.training.loop import Stage, descend, report, report_losses, run_command
from tools.training.networks import initialise, label_maps
from tools.training.optimizing import build_optimizers
from tools.training.scenes import class_loss
from tools.video_model.clips import DIRECTIONS, FRAMES, SIDE, Clip, make_clip

WIDTH: Final = 64
PATCH: Final = 8  # side of a tube, in pixels
TUBE: Final = 2  # frames of a tube
FIRST_SEED: Final = 1_000_000  # clips of smaller seeds are never trained on
STAGE: Final = Stage(side=SIDE // PATCH, scenes=8_000, steps=2_500, batch_size=32, rates=(3e-3, 1e-5))


def build_video_model() -> VideoMAEForVideoClassification:
    """Return a model with random weights."""
    config = VideoMAEConfig(
        image_size=SIDE,
        patch_size=PATCH,
        num_frames=FRAMES,
        tubelet_size=TUBE,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=3 * WIDTH,
        use_mean_pooling=True,
        initializer_range=0.05,
        **label_maps(list(DIRECTIONS)),
    )
    model = VideoMAEForVideoClassification(config)
    initialise(model)
    return model


def clip_values(clips: Iterable[Clip]) -> Tensor:
    """Return the pixel values of clips, (N, frames, 3, height, width), from -1 to 1."""
    frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    return (frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1).contiguous()


def tube_shares(mask: NDArray[np.bool_]) -> Tensor:
    """Return the share of each tube that lies in a mask (frames, height, width), (time, rows, columns)."""
    cut = torch.from_numpy(mask).float().unfold(0, TUBE, TUBE).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    return cut.mean((3, 4, 5))


def train(output: Path, seed: int, stage: Stage = STAGE) -> None:
    """Train a model and write it into a folder."""
    torch.manual_seed(seed)
    clips = [make_clip(FIRST_SEED + index, 1 + index % 2) for index in range(stage.scenes)]
    model, head = build_video_model().train(), nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(DIRECTIONS) + 1))
    generator = torch.Generator().manual_seed(seed)

    def draw_loss() -> Tensor:
        chosen = torch.randint(len(clips), (stage.batch_size,), generator=generator).tolist()
        return _loss(model, head, [clips[index] for index in chosen])

    for _ in report_losses(descend(build_optimizers(model, head), stage, draw_loss), stage):
        pass
    model.eval().save_pretrained(output)
    for moving in (1, 2):
        report(f"{moving} moving: {accuracy(model, moving, range(500_000, 501_000))} right")


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


if __name__ == "__main__":
    run_command(train, "video")
