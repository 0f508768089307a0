"""Tokens of a decoder with cross-attention that come before its answer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def has_encoder(model: Any) -> bool:
    """Return True for models whose decoder reads an encoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def input_device(model: Any) -> torch.device:
    """Return the device of the first weights; the CPU if accelerate has all of them elsewhere."""
    return next((weight.device for weight in model.parameters() if not weight.is_meta), torch.device("cpu"))


def decoder_start(model: Any, tokenizer: Any, arguments: Mapping[str, Any], gen_args: Mapping[str, Any]) -> Tensor:
    """Return the decoder's tokens (1, P) before the answer.

    These are the ``decoder_input_ids`` of the arguments, or else the start token. Whisper's language, task and
    "no timestamps" tokens follow it: the language of ``gen_args``, or the one that the model hears.
    """
    given, device = arguments.get("decoder_input_ids"), input_device(model)
    if given is not None:
        if not isinstance(given, Tensor) or given.is_floating_point() or given.dim() != 2 or len(given) != 1:
            raise ValueError(f"decoder_input_ids must be whole numbers of shape (1, tokens), but got {given!r}.")
        return given.to(device)
    settings = model.generation_config
    start = getattr(settings, "decoder_start_token_id", None)
    start = start if start is not None else getattr(model.config, "decoder_start_token_id", None)
    if start is None:
        raise ValueError(
            f"{type(model).__name__} must have a decoder_start_token_id in its generation_config, with which its "
            "answers begin, but got none."
        )
    no_times_token = getattr(settings, "no_timestamps_token_id", None)
    if no_times_token is None and model.config.model_type == "whisper" and tokenizer is not None:
        no_times_token = tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    tokens = [start, *_language_and_task(model, arguments, gen_args), no_times_token]
    return torch.tensor([[token for token in tokens if token is not None]], device=device)


def _language_and_task(model: Any, arguments: Mapping[str, Any], gen_args: Mapping[str, Any]) -> list[int]:
    """Return Whisper's tokens of language and task, if the model knows several languages."""
    settings = model.generation_config
    languages, tasks = getattr(settings, "lang_to_id", None), getattr(settings, "task_to_id", None)
    if not languages or not tasks:
        return []
    language = gen_args.get("language") or getattr(settings, "language", None)
    task = gen_args.get("task") or getattr(settings, "task", None) or "transcribe"
    if language is None:
        number = int(model.detect_language(input_features=arguments["input_features"])[0])
    else:
        number = languages.get(f"<|{language}|>", languages.get(language))
    if number is None or task not in tasks:
        raise ValueError(
            f"gen_args must have a language of {', '.join(languages)} and a task of {', '.join(tasks)}, but got "
            f"{language!r} and {task!r}."
        )
    return [number, tasks[task]]
