"""Model inputs of prompts and pictures."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from captum_gmar.files.sounds import Sound
from captum_gmar.vlm.answer_start import has_encoder, input_device
from captum_gmar.vlm.image_tokens import image_token_id
from captum_gmar.vlm.sounds import sound_features

# Processors of these model types put image tokens before the prompt.
_TOKEN_INSERTING_TYPES = ("paligemma", "florence2", "blip-2", "instructblip", "git")

RGB_DIMS, CHANNELS = 3, (1, 3, 4)  # of arrays, whose channels come first or last


def prompt_inputs(
    model: Any, processor: Any, prompt: str, images: Any = None, sound: Sound | None = None
) -> dict[str, Any]:
    """Return the model's inputs for one prompt.

    The prompt is a question for the processor's chat template, or a text with image tokens, which is used unchanged; it
    is empty for encoder–decoder captioners and speech recognisers. A sound has the processor's rate.
    """
    pictures = _list_pictures(images)
    if processor is None:
        raise ValueError("processor must be the model's own, where the inputs are a prompt, but got None.")
    if pictures:
        _check_takes_pictures(model, processor)
    is_recogniser = sound is not None and has_encoder(model)
    if prompt and (is_recogniser or model.config.model_type == "vision-encoder-decoder"):
        raise ValueError(f"inputs must be an empty prompt for {type(model).__name__}, but got {prompt!r}.")
    if is_recogniser and sound is not None:
        return sound_features(model, processor, sound)
    text = _apply_template(model, processor, prompt, len(pictures), sound is not None)
    arguments: dict[str, Any] = {} if model.config.model_type == "vision-encoder-decoder" else {"text": text}
    if pictures:
        arguments["images"] = pictures
    if sound is not None:
        arguments["audio"] = sound.samples
    try:
        returned = dict(processor(**arguments, return_tensors="pt"))
    except Exception as error:  # processors raise errors of many classes
        what = "pictures or prompt" if pictures else "prompt" if sound is None else "sound or prompt"
        raise ValueError(
            f"{type(processor).__name__} cannot be given the {what}: {_first_line(error)}. Check them."
        ) from error
    _check_fits(model, processor, returned, len(pictures))
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in returned.items() if name != "token_type_ids" or name in known}


def picture_sizes(images: Any) -> list[tuple[int, int]] | None:
    """Return each picture's (height, width), or None if one is not a ``PIL.Image``, array or tensor."""
    sizes = []
    for picture in _list_pictures(images):
        shape: Sequence[int] = picture.size[::-1] if isinstance(picture, Image.Image) else getattr(picture, "shape", ())
        if len(shape) == RGB_DIMS:
            shape = shape[1:] if shape[0] in CHANNELS else shape[:2]
        if len(shape) != RGB_DIMS - 1:
            return None
        height, width = shape
        sizes.append((int(height), int(width)))
    return sizes


def _list_pictures(images: Any) -> list[Any]:
    """Return one or several pictures as a list."""
    is_list = isinstance(images, Sequence) and not isinstance(images, str)
    return [] if images is None else list(images) if is_list else [images]


def _check_takes_pictures(model: Any, processor: Any) -> None:
    """Raise a ValueError unless model and processor take pictures."""
    has_tower = hasattr(model.config, "vision_config") or model.main_input_name == "pixel_values"
    if not has_tower:
        raise ValueError(f"model must take pictures, where there are any, but got {type(model).__name__}, of text.")
    if getattr(processor, "image_processor", None) is None:
        raise ValueError(
            f"processor must take pictures, where there are any, but got {type(processor).__name__}. Load the model's "
            "by AutoProcessor.from_pretrained."
        )
    token, number, name = image_token_id(model), getattr(processor, "image_token_id", None), type(processor).__name__
    if None not in (token, number) and token != number:
        raise ValueError(
            f"processor must fit the model, {type(model).__name__}, whose image token is {token}, but got {number} of "
            f"{name}."
        )


def _apply_template(model: Any, processor: Any, prompt: str, pictures: int, has_sound: bool) -> str:
    token = getattr(processor, "audio_token" if has_sound else "image_token", None)
    if (isinstance(token, str) and token in prompt) or not isinstance(prompt, str):
        return prompt
    if getattr(processor, "chat_template", None):
        parts = [*[{"type": "image"}] * pictures, *[{"type": "audio"}] * has_sound, {"type": "text", "text": prompt}]
        is_of_text = getattr(processor, "image_processor", None) is None and not has_sound
        message = {"role": "user", "content": prompt if is_of_text else parts}
        templated: str = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        if has_sound and token is not None and token not in templated:  # the template is of text alone
            message["content"] = token + prompt
            templated = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return templated
    if has_sound:
        return (token or "") + prompt
    inserts_tokens = model.config.model_type in _TOKEN_INSERTING_TYPES or image_token_id(model) is None
    return prompt if inserts_tokens or token is None else token * pictures + prompt


def _check_fits(model: Any, processor: Any, returned: dict[str, Any], pictures: int) -> None:
    """Raise a ValueError unless the processor's output fits the model."""
    name, kind, ids = type(processor).__name__, type(model).__name__, returned.get("input_ids")
    words = model.get_output_embeddings().weight.shape[0]
    if ids is not None and (not ids.numel() or int(ids.max()) >= words):
        got = f"token {int(ids.max())}" if ids.numel() else "no tokens"
        raise ValueError(f"processor must fit the model, {kind}, which knows {words} tokens, but got {got} of {name}.")
    if pictures and "pixel_values" not in returned:
        raise ValueError(f"processor must return pixel_values for pictures, but got {', '.join(returned)} of {name}.")


def place_inputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs on the model's device and in its precision."""
    device, precision = input_device(model), next(w.dtype for w in model.parameters() if w.is_floating_point())
    return {  # a vector of floats has times, which the model reads in full precision
        name: value.to(device, precision if value.is_floating_point() and value.dim() > 1 else None)
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
