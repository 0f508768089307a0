"""Small random models that detect, segment, or classify videos or sounds."""

import torch
import transformers
from field_families import detr, resnet

TOKENS = {
    **{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32},
    **{"initializer_range": 0.3, "id2label": {0: "cat", 1: "dog", 2: "bird"}},
}
SIZE = {"height": 64, "width": 64}
STAGES = {
    **{"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 2]},
    **{"decoder_hidden_size": 16, "id2label": TOKENS["id2label"]},
}
SOUNDS = {"max_length": 40, "num_mel_bins": 16}


def make():
    """Return small random models with their processors."""
    torch.manual_seed(0)
    t = transformers
    yolos = t.YolosConfig(**TOKENS, image_size=[32, 48], patch_size=8, num_detection_tokens=6)
    film = t.VideoMAEConfig(**TOKENS, image_size=24, num_frames=4, patch_size=8, tubelet_size=2)
    sound = t.ASTConfig(**TOKENS, **SOUNDS, patch_size=4, frequency_stride=3, time_stride=3)
    crop = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    edges = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
    mobile = t.MobileViTConfig(
        **{"image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16]},
        **{"num_attention_heads": 2, "aspp_out_channels": 8, "output_stride": 8, "id2label": TOKENS["id2label"]},
    )
    pad = {"size": {"shortest_edge": 40, "longest_edge": 60}, "pad_size": {"height": 64, "width": 96}}
    return {
        "detector": (
            t.YolosForObjectDetection(yolos),
            t.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}),
        ),
        "segmenter": (
            t.SegformerForSemanticSegmentation(t.SegformerConfig(**STAGES)),
            t.SegformerImageProcessor(size=SIZE),
        ),
        "cropping segmenter": (t.MobileViTForSemanticSegmentation(mobile), t.MobileViTImageProcessor(**edges)),
        "padding detector": (detr("Detr", resnet("stage4")), t.DetrImageProcessor(**pad)),
        "film": (t.VideoMAEForVideoClassification(film), t.VideoMAEImageProcessor(**crop)),
        "sound": (t.ASTForAudioClassification(sound), t.ASTFeatureExtractor(**SOUNDS)),
    }
