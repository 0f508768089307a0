"""Tiny models that generate text from sounds, with random weights."""

from functools import cache

import torch
import transformers as tf
from text_models import TEXT, pixels

SOUND_TOKEN = 90
SIZES = {
    **{"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "vocab_size": 99},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
}
AUDIO = {
    **{"num_mel_bins": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "d_model": 16},
    **{"max_source_positions": 20},
}


def whisper():
    config = tf.WhisperConfig(**SIZES, num_mel_bins=8, max_source_positions=50, max_target_positions=32)
    return tf.WhisperForConditionalGeneration(config), {"input_features": pixels(1, 8, 100)}


def moonshine():
    config = tf.MoonshineConfig(
        **{"vocab_size": 99, "hidden_size": 16, "intermediate_size": 24, "encoder_num_hidden_layers": 1},
        **{"decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2},
        **{"max_position_embeddings": 64, "decoder_start_token_id": 2},
    )
    return tf.MoonshineForConditionalGeneration(config), {"input_values": pixels(1, 6000)}


def speecht5():
    config = tf.SpeechT5Config(
        **{"vocab_size": 99, "hidden_size": 16, "encoder_layers": 1, "encoder_attention_heads": 2},
        **{"encoder_ffn_dim": 24, "decoder_layers": 2, "decoder_ffn_dim": 24, "decoder_attention_heads": 4},
        **{"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 4},
        **{"num_conv_pos_embedding_groups": 2, "decoder_start_token_id": 2, "max_text_positions": 64},
    )
    return tf.SpeechT5ForSpeechToText(config), {"input_values": pixels(1, 200)}


def speech_to_text():
    config = tf.Speech2TextConfig(
        **SIZES, input_feat_per_channel=8, conv_channels=8, max_source_positions=64, max_target_positions=32
    )
    features = pixels(1, 40, 8)
    return tf.Speech2TextForConditionalGeneration(config), {"input_features": features}


def seamless_m4t():
    config = tf.SeamlessM4TConfig(
        **{"vocab_size": 99, "hidden_size": 16, "feature_projection_input_dim": 8, "speech_encoder_layers": 1},
        **{"speech_encoder_attention_heads": 2, "speech_encoder_intermediate_size": 24, "encoder_layers": 1},
        **{"decoder_layers": 2, "decoder_ffn_dim": 24, "decoder_attention_heads": 4, "encoder_ffn_dim": 24},
        **{"encoder_attention_heads": 2, "max_position_embeddings": 64, "decoder_start_token_id": 2},
        **{"num_adapter_layers": 1, "adaptor_stride": 2, "adaptor_kernel_size": 2, "num_conv_pos_embeddings": 4},
    )
    return tf.SeamlessM4TForSpeechToText(config), {"input_features": pixels(1, 40, 8)}


def qwen2_audio():
    config = tf.Qwen2AudioConfig(
        audio_config=AUDIO, text_config=tf.Qwen2Config(**TEXT).to_dict(), audio_token_index=SOUND_TOKEN
    )
    ids = torch.tensor([[1, 5, *[SOUND_TOKEN] * 10, 6]])
    features = {"input_features": pixels(1, 8, 40), "feature_attention_mask": torch.ones(1, 40).long()}
    return tf.Qwen2AudioForConditionalGeneration(config), {
        **{"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        **features,
    }


def voxtral():
    audio = {
        **{"num_mel_bins": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
        **{"hidden_size": 16, "max_source_positions": 20},
    }
    config = tf.VoxtralConfig(audio_config=audio, text_config=tf.LlamaConfig(**TEXT).to_dict(), audio_token_id=90)
    ids = torch.tensor([[1, 5, *[SOUND_TOKEN] * 5, 6]])
    return tf.VoxtralForConditionalGeneration(config), {"input_ids": ids, "input_features": pixels(1, 8, 40)}


def granite_speech():
    encoder = {
        **{"input_dim": 8, "num_layers": 1, "hidden_dim": 16, "num_heads": 2, "dim_head": 8, "output_dim": 9},
        **{"context_size": 10, "max_pos_emb": 10, "conv_kernel_size": 3},
    }
    projector = {
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24},
        **{"encoder_hidden_size": 16, "model_type": "blip_2_qformer"},
    }
    config = tf.GraniteSpeechConfig(
        **{"text_config": tf.GraniteConfig(**TEXT).to_dict(), "encoder_config": encoder},
        **{"projector_config": projector, "audio_token_index": SOUND_TOKEN, "has_lora_adapter": False},
        **{"downsample_rate": 5, "window_size": 15},
    )
    ids = torch.tensor([[1, 5, *[SOUND_TOKEN] * 6, 6]])
    inputs = {"input_features": pixels(1, 30, 8), "input_features_mask": torch.ones(1, 6).bool()}
    return tf.GraniteSpeechForConditionalGeneration(config), {"input_ids": ids, **inputs}


RECOGNISERS = {build.__name__: build for build in (whisper, moonshine, speecht5, speech_to_text, seamless_m4t)}
SPEECH_MODELS = RECOGNISERS | {build.__name__: build for build in (qwen2_audio, voxtral, granite_speech)}


@cache
def speech_model(name):
    """In float64, and in evaluation mode; nobody is to change it."""
    torch.manual_seed(0)
    model, inputs = SPEECH_MODELS[name]()
    return model.double().eval(), inputs


def save_recogniser(folder):
    """Write a tiny Whisper that reads a second of sound, with its processor of letters."""
    torch.manual_seed(0)
    model, _ = whisper()
    model.generation_config.eos_token_id = 98
    model.eval().save_pretrained(folder)
    letters = {letter: number for number, letter in enumerate(["!", "a", "<|endoftext|>", "b", "c", "t", "Ġ"])}
    marks = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = tf.WhisperTokenizer(vocab=letters, merges=[], **marks)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|notimestamps|>"]})
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    tf.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def save_audio_language_model(folder):
    """Write a tiny Qwen2-Audio that reads a second of sound, with its processor of letters."""
    torch.manual_seed(0)
    text = tf.Qwen2Config(**TEXT | {"max_position_embeddings": 512}).to_dict()
    audio = AUDIO | {"max_source_positions": 50}
    config = tf.Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=SOUND_TOKEN)
    model = tf.Qwen2AudioForConditionalGeneration(config)
    model.generation_config.eos_token_id = 98
    model.eval().save_pretrained(folder)
    letters = {letter: number for number, letter in enumerate([*map(chr, range(33, 122)), "Ġ"])}
    tokenizer = tf.Qwen2Tokenizer(
        vocab=letters, merges=[], **dict.fromkeys(("unk_token", "eos_token", "pad_token"), "!")
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]})
    extractor = tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    tf.Qwen2AudioProcessor(extractor, tokenizer).save_pretrained(folder)
