"""Tiny models that generate text from pictures, with random weights: how to build each, and what it is called with."""

from functools import cache

import torch
import transformers as tf
from torch import nn

IMAGE_TOKEN = 90
PROMPT, ANSWER = (1, 5), (7, 8, 9, 10)
TEXT = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99},
    **{"num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
VISION = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 8},
}
QFORMER = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"encoder_hidden_size": 16, "vocab_size": 99},
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
QWEN_TEXT = {**TEXT, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 0]}}
QWEN_VISION = {"hidden_size": 16, "num_heads": 2, "patch_size": 8, "depth": 2}
QWEN_TOKENS = {"image_token_id": IMAGE_TOKEN, "video_token_id": 91, "vision_start_token_id": 92}


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def prompt(image_tokens):
    return torch.tensor([[*PROMPT, *[IMAGE_TOKEN] * image_tokens, 6]])


def llava():
    vision, text = tf.CLIPVisionConfig(**VISION), tf.LlamaConfig(**TEXT)
    config = tf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN)
    inputs = {"input_ids": prompt(32), "pixel_values": pixels(2, 3, 32, 32)}
    return tf.LlavaForConditionalGeneration(config), inputs


def pixtral():
    vision = tf.PixtralVisionConfig(**{**VISION, "image_size": 64, "head_dim": 8})
    config = tf.LlavaConfig(
        **{"text_config": tf.MistralConfig(**TEXT, head_dim=4, sliding_window=8), "vision_config": vision},
        **{"image_token_index": IMAGE_TOKEN, "vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    )
    inputs = {"input_ids": prompt(24), "pixel_values": pixels(1, 3, 32, 48), "image_sizes": torch.tensor([[32, 48]])}
    return tf.LlavaForConditionalGeneration(config), inputs


def mistral3():
    vision = tf.PixtralVisionConfig(**{**VISION, "image_size": 64, "head_dim": 8})
    text = tf.MistralConfig(**TEXT, head_dim=4)
    config = tf.Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN, spatial_merge_size=2
    )
    inputs = {"input_ids": prompt(6), "pixel_values": pixels(1, 3, 32, 48), "image_sizes": torch.tensor([[32, 48]])}
    return tf.Mistral3ForConditionalGeneration(config), inputs


def llava_onevision():
    config = tf.LlavaOnevisionConfig(
        **{"text_config": tf.Qwen2Config(**TEXT), "vision_config": tf.SiglipVisionConfig(**VISION)},
        **{"image_token_index": IMAGE_TOKEN, "video_token_index": 91, "vision_feature_select_strategy": "full"},
        **{"vision_feature_layer": -1, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]},
    )
    inputs = {"input_ids": prompt(16 + 64 + 8), "image_sizes": torch.tensor([[64, 64]])}
    return tf.LlavaOnevisionForConditionalGeneration(config), {**inputs, "pixel_values": pixels(1, 5, 3, 32, 32)}


def llava_next():
    config = tf.LlavaNextConfig(
        **{"text_config": tf.LlamaConfig(**TEXT), "vision_config": tf.CLIPVisionConfig(**VISION)},
        **{"image_token_index": IMAGE_TOKEN, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]},
    )
    inputs = {"input_ids": prompt(16 + 64 + 8), "image_sizes": torch.tensor([[64, 64]])}
    return tf.LlavaNextForConditionalGeneration(config), {**inputs, "pixel_values": pixels(1, 5, 3, 32, 32)}


def llava_next_video():
    vision, text = tf.CLIPVisionConfig(**VISION), tf.LlamaConfig(**TEXT)
    config = tf.LlavaNextVideoConfig(
        **{"text_config": text, "vision_config": vision, "image_token_index": IMAGE_TOKEN, "video_token_index": 91},
        **{"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]},
    )
    ids = torch.tensor([[*PROMPT, *[91] * 3 * 4, 6]])  # three frames of 4 × 4 patches, pooled to 2 × 2
    return tf.LlavaNextVideoForConditionalGeneration(config), {
        **{"input_ids": ids, "pixel_values_videos": pixels(1, 3, 3, 32, 32)}
    }


def _qwen_inputs():
    ids = torch.tensor([[1, 92, *[IMAGE_TOKEN] * 6, 6]])
    grid = torch.tensor([[1, 4, 6]])
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == IMAGE_TOKEN).int(), "image_grid_thw": grid}
    return {**inputs, "attention_mask": torch.ones_like(ids), "pixel_values": pixels(24, 3 * 2 * 64)}


def qwen2_vl():
    vision = {"embed_dim": 16, "mlp_ratio": 2, **QWEN_VISION}
    config = tf.Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_TOKENS)
    return tf.Qwen2VLForConditionalGeneration(config), _qwen_inputs()


def qwen25_vl():
    vision = {"out_hidden_size": 16, "intermediate_size": 24, "window_size": 32, "fullatt_block_indexes": [1]}
    config = tf.Qwen2_5_VLConfig(text_config=QWEN_TEXT, vision_config={**vision, **QWEN_VISION}, **QWEN_TOKENS)
    return tf.Qwen2_5_VLForConditionalGeneration(config), _qwen_inputs()


def qwen3_vl():
    vision = {"out_hidden_size": 16, "intermediate_size": 24, "deepstack_visual_indexes": [0]}
    vision = {**vision, **QWEN_VISION, "num_position_embeddings": 64}
    text = {**QWEN_TEXT, "head_dim": 4}
    config = tf.Qwen3VLConfig(text_config=text, vision_config=vision, **QWEN_TOKENS)
    return tf.Qwen3VLForConditionalGeneration(config), _qwen_inputs()


def internvl():
    vision = tf.InternVLVisionConfig(**{**VISION, "image_size": [32, 32], "patch_size": [8, 8]})
    config = tf.InternVLConfig(
        text_config=tf.Qwen2Config(**TEXT), vision_config=vision, image_token_id=IMAGE_TOKEN, image_seq_length=4
    )
    ids = torch.tensor([[*PROMPT, *[IMAGE_TOKEN] * 4, 91, 92, *[IMAGE_TOKEN] * 4, 6]])  # two pictures
    return tf.InternVLForConditionalGeneration(config), {"input_ids": ids, "pixel_values": pixels(2, 3, 32, 32)}


def _tiles():
    """One picture of two rows of three tiles, and its overview, as the processors of both models write it."""
    mark, overview, new_line, tile = 80, 81, 82, [IMAGE_TOKEN] * 4
    rows = [[part for column in range(3) for part in (mark, 83 + 3 * row + column, *tile)] for row in range(2)]
    ids = [*PROMPT, *rows[0], new_line, *rows[1], new_line, new_line, mark, overview, *tile, mark, 6]
    mask = torch.ones(1, 7, 32, 32, dtype=torch.long)
    return {"input_ids": torch.tensor([ids]), "pixel_values": pixels(1, 7, 3, 32, 32), "pixel_attention_mask": mask}


def smolvlm():
    parts = {"text_config": tf.LlamaConfig(**TEXT), "vision_config": dict(VISION), "scale_factor": 2}
    return tf.SmolVLMForConditionalGeneration(tf.SmolVLMConfig(**parts, image_token_id=IMAGE_TOKEN)), _tiles()


def idefics3():
    parts = {"text_config": tf.LlamaConfig(**TEXT), "vision_config": dict(VISION), "scale_factor": 2}
    return tf.Idefics3ForConditionalGeneration(tf.Idefics3Config(**parts, image_token_id=IMAGE_TOKEN)), _tiles()


def paligemma():
    vision, text = tf.SiglipVisionConfig(**VISION, projection_dim=16), tf.GemmaConfig(**TEXT, head_dim=4)
    sizes = {"projection_dim": 16, "hidden_size": 16}
    config = tf.PaliGemmaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN, **sizes)
    ids = prompt(16)
    inputs = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
    return tf.PaliGemmaForConditionalGeneration(config), {**inputs, "pixel_values": pixels(1, 3, 32, 32)}


def gemma3():
    windows = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    config = tf.Gemma3Config(
        **{"text_config": tf.Gemma3TextConfig(**TEXT, head_dim=4, **windows), "image_token_index": IMAGE_TOKEN},
        **{"vision_config": tf.SiglipVisionConfig(**VISION), "mm_tokens_per_image": 4},
    )
    ids = prompt(4)
    inputs = {"input_ids": ids, "token_type_ids": (ids == IMAGE_TOKEN).long(), "attention_mask": torch.ones_like(ids)}
    return tf.Gemma3ForConditionalGeneration(config), {**inputs, "pixel_values": pixels(1, 3, 32, 32)}


def blip2():
    text = tf.OPTConfig(
        **{"vocab_size": 99, "hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 2, "ffn_dim": 24},
        **{"num_attention_heads": 4, "max_position_embeddings": 64},
    )
    parts = {"text_config": text.to_dict(), "vision_config": dict(VISION), "qformer_config": QFORMER}
    config = tf.Blip2Config(**parts, num_query_tokens=4, image_token_index=IMAGE_TOKEN)
    inputs = {"input_ids": prompt(4), "pixel_values": pixels(1, 3, 32, 32)}
    return tf.Blip2ForConditionalGeneration(config), inputs


def instructblip():
    text = tf.LlamaConfig(**TEXT).to_dict()
    parts = {"text_config": text, "vision_config": dict(VISION), "qformer_config": QFORMER}
    config = tf.InstructBlipConfig(**parts, num_query_tokens=4, image_token_index=IMAGE_TOKEN)
    inputs = {"input_ids": prompt(4), "qformer_input_ids": torch.tensor([[3, 4]])}
    return tf.InstructBlipForConditionalGeneration(config), {**inputs, "pixel_values": pixels(1, 3, 32, 32)}


def mllama():
    vision = {
        **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_global_layers": 1},
        **{"attention_heads": 2, "image_size": 32, "patch_size": 8, "max_num_tiles": 2, "vision_output_dim": 32},
        **{"supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]], "intermediate_layers_indices": [0]},
    }
    text = {**TEXT, "cross_attention_layers": [1], "rope_parameters": ROPE}
    config = tf.MllamaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN)
    model, ids = tf.MllamaForConditionalGeneration(config), prompt(1)
    for name, parameter in model.named_parameters():
        if "cross_attn" in name and "gate" in name:  # zero in a new model, which then does not look at pictures
            nn.init.constant_(parameter, 0.5)
    return model, {
        **{"input_ids": ids, "pixel_values": pixels(1, 1, 2, 3, 32, 32), "aspect_ratio_ids": torch.tensor([[2]])},
        **{"aspect_ratio_mask": torch.tensor([[[1, 1]]]), "attention_mask": torch.ones_like(ids)},
        "cross_attention_mask": torch.ones(1, ids.shape[1], 1, 2, dtype=torch.long),
    }


def florence2():
    text = tf.BartConfig(
        **{"vocab_size": 99, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 24},
        **{"decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        **{"max_position_embeddings": 64},
    )
    vision = {
        **{"depths": [1] * 4, "embed_dim": [8, 8, 8, 16], "num_heads": [2] * 4, "num_groups": [2] * 4},
        **{"patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2], "patch_padding": [3, 1, 1, 1]},
        **{"patch_prenorm": [False, True, True, True], "window_size": 4, "projection_dim": 16},
    }
    config = tf.Florence2Config(text_config=text.to_dict(), vision_config=vision, image_token_id=IMAGE_TOKEN)
    model = tf.Florence2ForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 2
    return model, {"input_ids": prompt(5), "pixel_values": pixels(1, 3, 64, 64)}


def _captioner(decoder):
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(tf.ViTConfig(**VISION), decoder)
    model = tf.VisionEncoderDecoderModel(config=config)
    model.generation_config.decoder_start_token_id = 2
    return model, {"pixel_values": pixels(1, 3, 32, 32)}


def vit_gpt2():
    sizes = {"n_embd": 16, "n_head": 4, "n_layer": 2, "vocab_size": 99, "n_positions": 64}
    return _captioner(tf.GPT2Config(**sizes, add_cross_attention=True, is_decoder=True))


def trocr():
    return _captioner(
        tf.TrOCRConfig(
            **{"d_model": 16, "decoder_attention_heads": 4, "decoder_layers": 2, "decoder_ffn_dim": 24},
            **{"vocab_size": 99, "max_position_embeddings": 64, "is_decoder": True, "add_cross_attention": True},
            cross_attention_hidden_size=16,
        )
    )


def git():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    config = tf.GitConfig(vision_config=dict(VISION), vocab_size=99, max_position_embeddings=64, **sizes)
    ids = torch.tensor([PROMPT])
    return tf.GitForCausalLM(config), {"input_ids": ids, "pixel_values": pixels(1, 3, 32, 32)}


def udop():
    config = tf.UdopConfig(
        **{"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2},
        **{"num_heads": 2, "image_size": 32, "patch_size": 8, "decoder_start_token_id": 2},
    )
    boxes = torch.zeros(1, 5, 4).double()  # of a question's token, three words on the page, and the end
    boxes[0, 1:] = torch.tensor([[0.1, 0.3, 0.2, 0.4], [0.3, 0.3, 0.6, 0.4], [0.05, 0.3, 0.2, 0.4], [1, 1, 1, 1]])
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 1]]), "bbox": boxes, "pixel_values": pixels(1, 3, 32, 32)}
    return tf.UdopForConditionalGeneration(config), inputs


def llama():
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT)), {"input_ids": torch.tensor([[1, 5, 6]])}


BUILDERS = (
    *(llava, pixtral, mistral3, llava_next, llava_onevision, qwen2_vl, qwen25_vl, qwen3_vl, internvl, smolvlm),
    *(llava_next_video, idefics3, paligemma, gemma3, blip2, instructblip, mllama, florence2, vit_gpt2, trocr, git),
    *(udop, llama),
)
TEXT_MODELS = {build.__name__: build for build in BUILDERS}


@cache
def text_model(name):
    """In float64, and in evaluation mode; nobody is to change it."""
    torch.manual_seed(0)
    model, inputs = TEXT_MODELS[name]()
    return model.double().eval(), inputs
