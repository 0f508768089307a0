"""The video model before training: VideoMAE, which reads tubes of two frames."""

from __future__ import annotations

from typing import Final

from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from tools.training.networks import initialise
from tools.video_model.clips import DIRECTIONS, FRAMES, SIDE

WIDTH: Final = 64
PATCH: Final = 8  # side of a tube, in pixels
TUBE: Final = 2  # frames of a tube


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
        id2label=dict(enumerate(DIRECTIONS)),
        label2id={name: index for index, name in enumerate(DIRECTIONS)},
    )
    model = VideoMAEForVideoClassification(config)
    initialise(model)
    return model
