"""Attention evidence for generated answers."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.vlm.answer_start import decoder_start, has_encoder
from captum_gmar.vlm.attribution import AnswerAttribution, normalize_evidence
from captum_gmar.vlm.decoder_pass import decoder_layers, explain_last_rows
from captum_gmar.vlm.image_tokens import PicturePrompt, image_token_id
from captum_gmar.vlm.layouts import Picture, picture_tokens
from captum_gmar.vlm.prompts import picture_sizes, place_inputs, prompt_inputs
from captum_gmar.vlm.sounds import SOUND_INPUTS, prepare_sound
from captum_gmar.vlm.word_scores import blank_scores, word_scores
from captum_gmar.vlm.words import token_texts

Answer: TypeAlias = str | Sequence[int] | Tensor
"""Answer as text for the processor's tokenizer, or as token ids."""

SPOKEN_TOKENS = 200  # of 30 seconds of speech at most
# Values of the answer's tokens in the model's other inputs: attended tokens of text.
ANSWER_VALUES = {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": 0}


class AnswerEvidence:
    r"""Attention evidence for every word of a generated answer, in one forward and one backward pass.

    .. math::
        R_{wj} = \sum_l \sum_h A_{l,h,ij} \; v_{l,h,j} \cdot \frac{\partial o_{l,w}}{\partial (A_{l,h} v_{l,h})_i},
        \qquad r_{wj} = R_{wj} \Big/ \sum_k |R_{wk}|

    where row i of the decoder makes word w, and :math:`o_{l,w}` are the word's log-odds if the final norm and the
    output embedding follow layer l directly. This is :class:`~captum_gmar.AttentionEvidence` for words. Each word
    depends on its own row, so explaining all words costs no more than explaining one.

    Limitations: the vision tower mixes information across the picture before the decoder reads an image token, and
    prompt tokens contain earlier ones. Nothing is assigned to a row's content before attention.

    The arguments follow Captum's ``LLMAttribution``: inputs, and the answer as target. Related methods are Saliency-R1
    (arXiv 2604.04500), DEX-AR (2603.06302) and TAM (2506.23270).

    Args:
        model: Model of transformers that generates text: LLaVA, Qwen-VL, InternVL, SmolVLM, PaliGemma, Gemma 3,
            Pixtral, Mllama, BLIP-2, Florence-2, an encoder–decoder captioner, Whisper or another speech recogniser,
            Qwen2-Audio, or a text model. It does not change.
        processor: The model's processor or tokenizer, for prompts and answers as text. None: token ids only.

    Raises:
        TypeError: if ``model`` is not a ``torch.nn.Module``.
        ValueError: if ``model`` does not generate text.
        ImportError: if transformers is older than 5.

    Example::

        >>> import torch, transformers
        >>> from captum_gmar import AnswerEvidence
        >>> config = transformers.LlamaConfig(
        ...     vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2
        ... )
        >>> model = transformers.LlamaForCausalLM(config).eval()
        >>> evidence = AnswerEvidence(model).attribute({"input_ids": torch.tensor([[1, 5, 7]])}, target=[8, 9])
        >>> evidence.relevance.shape, evidence.tokens
        (torch.Size([2, 4]), ('8', '9'))
    """

    def __init__(self, model: nn.Module, processor: Any = None) -> None:
        check_model(model)
        check_version()
        decoder_layers(model)
        self.model: Any = model
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor if hasattr(processor, "decode") else None)

    @classmethod
    def get_name(cls) -> str:
        """Return the display name."""
        return "Answer evidence"

    def attribute(
        self,
        inputs: Mapping[str, Any] | str = "",
        target: Answer | None = None,
        contrast: Answer | None = None,
        gen_args: Mapping[str, Any] | None = None,
        images: Any = None,
        sound: Any = None,
        with_gains: bool = False,
    ) -> AnswerAttribution:
        """Explain every token of an answer.

        Args:
            inputs: A prompt, to which the processor's chat template is applied if there is one; or the processor's
                output for one example.
            target: The answer as text or ids. Default: None, the model's own answer.
            contrast: Tokens to explain against: one, or one per target token. The result explains why the model
                generates each token rather than its contrast.
            gen_args: Arguments of the model's ``generate`` if there is no target. Default: greedy, at most 25 tokens,
                and of a sound at most 200.
            images: One or several pictures of a prompt. InternVL and Mllama lay out tiles by a picture's size, which
                needs a ``PIL.Image``, array or tensor.
            sound: A sound of a prompt, empty for speech recognisers: a WAV file, or a tuple of samples (samples,) or
                (samples, channels) and their rate. It is resampled, and cut where the model's window ends.

            with_gains: Compute each word's gain too, in one more forward pass: its score minus that for pictures of the
                mean colour, or for silence.

        Returns:
            AnswerAttribution: Results, in single precision for half-precision models.

        Raises:
            OSError: if the sound cannot be read.
            TypeError: if an answer is neither text nor ids, ``gen_args`` is not a mapping, or ``sound`` is neither a
                file nor samples with their rate.
            ValueError: if the inputs are not one example, or the processor does not accept them or fit the model; if
                the answer is empty or unknown to the tokenizer, is text without a tokenizer, or exceeds the model's
                positions; or if the contrast has another number of tokens or is the answer.
            RuntimeError: if the decoder's attention cannot be captured.
            FloatingPointError: if scores or relevance are NaN or infinite.
        """
        if not isinstance(gen_args or {}, Mapping):
            raise TypeError(f"gen_args must be a mapping of arguments of generate, but got {gen_args!r}.")
        sizes = picture_sizes(images)
        if sizes and 0 in chain(*sizes):
            raise ValueError(f"images must have pixels, but got sizes {sizes}.")
        heard = None if sound is None else prepare_sound(self.model, self.processor, sound)
        if isinstance(inputs, str):
            inputs = prompt_inputs(self.model, self.processor, inputs, images, heard)
        elif images is not None or sound is not None:
            raise ValueError("images and sound require a prompt, but got inputs of a processor. Pass one of both.")
        arguments = check_example(self.model, inputs)
        if has_encoder(self.model):
            arguments["decoder_input_ids"] = decoder_start(self.model, self.tokenizer, arguments, gen_args or {})
        _check_positions(self.model, arguments, 0)
        ids = self._generate(arguments, dict(gen_args or {})) if target is None else self._token_ids(target, "target")
        contrast_ids = None if contrast is None else self._contrast_ids(contrast, ids)
        _check_positions(self.model, arguments, len(ids) - 1)
        score = partial(word_scores, ids=ids, contrast=contrast_ids)
        given = self.model, self._append_answer(arguments, ids), len(ids), score
        evidence = explain_last_rows(*given)
        tokens, encoded, scores, totals = normalize_evidence(evidence)
        length = (tokens if encoded is None else encoded).shape[1]
        pictures = picture_tokens(PicturePrompt(self.model, arguments, length, sizes, self.tokenizer))
        prompt_length, space = tokens.shape[1] - len(ids) + 1, " " * (self.tokenizer is None)
        return AnswerAttribution(
            tuple(token_texts(self.tokenizer, ids)),
            *(tokens, encoded, scores, totals),
            prompt_length,
            None if pictures is None else tuple(pictures),
            sound=heard,
            gains=scores - blank_scores(*given) if with_gains else None,
            contrast=None if contrast_ids is None else space.join(token_texts(self.tokenizer, contrast_ids)).strip(),
            prompt_tokens=self._prompt_tokens(arguments, prompt_length, pictures),
            attended=evidence.attended,
        )

    def _prompt_tokens(
        self, arguments: Mapping[str, Any], length: int, pictures: Sequence[Picture] | None
    ) -> tuple[str, ...]:
        """Return the text of each prompt token, "" for those of pictures; nothing if the decoder reads others."""
        ids = None if has_encoder(self.model) else arguments.get("input_ids")
        if ids is None or ids.shape[1] != length or pictures is None:
            return ()
        image_slots = {place for picture in pictures if not picture.is_encoded for place in picture.positions.tolist()}
        places = [place for place in range(length) if place not in image_slots]
        texts = dict(zip(places, token_texts(self.tokenizer, ids[0, places].tolist()), strict=True))
        return tuple(texts.get(place, "") for place in range(length))

    def _generate(self, arguments: Mapping[str, Any], gen_args: dict[str, Any]) -> list[int]:
        """Generate an answer's tokens, without end tokens."""
        start = arguments["decoder_input_ids" if has_encoder(self.model) else "input_ids"][0].tolist()
        most, positions = 25, _last_position(self.model)
        if any(name in arguments for name in SOUND_INPUTS):
            most = SPOKEN_TOKENS
        if positions is not None:
            most = max(1, min(most, positions - len(start)))
        gen_args = {"max_new_tokens": most, "do_sample": False, **gen_args}
        with torch.no_grad():
            sequence: list[int] = self.model.generate(**arguments, **gen_args)[0].tolist()
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        answer = sequence[len(start) :] if sequence[: len(start)] == start else sequence  # Whisper leaves its start out
        while answer and answer[-1] in ends:
            answer.pop()
        if not answer:
            raise ValueError("The model must answer with a token at least, but ended at once. Pass target.")
        return answer

    def _token_ids(self, answer: Answer, name: str) -> list[int]:
        if isinstance(answer, str):
            if self.tokenizer is None:
                raise ValueError(f"{name} must be token ids without a tokenizer, but got text. Pass the processor.")
            if self.model.config.model_type == "whisper" and answer[:1].strip() and answer[:1].isascii():
                answer = f" {answer}"  # Whisper's words begin with a space
            text, answer = answer, self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            if not answer:
                raise ValueError(f"{name} must be text of at least one token, but got {text!r}.")
            if set(answer) == {getattr(self.tokenizer, "unk_token_id", None)}:
                raise ValueError(f"{name} must have a token that the tokenizer knows, but got {text!r}.")
        if not isinstance(answer, Tensor | Sequence) or isinstance(answer, bytes):
            raise TypeError(f"{name} must be text or token ids, but got {answer!r}.")
        ids: list[Any] = answer.flatten().tolist() if isinstance(answer, Tensor) else list(answer)
        words = self.model.get_output_embeddings().weight.shape[0]
        if not ids or any(type(number) is not int or not 0 <= number < words for number in ids):
            raise ValueError(f"{name} must be at least one token of the model's {words}, but got {ids[:8]}.")
        return ids

    def _contrast_ids(self, contrast: Answer, ids: list[int]) -> list[int]:
        others = self._token_ids(contrast, "contrast")
        if len(others) not in (1, len(ids)):
            raise ValueError(
                f"contrast must be one token, or as many as the target's {len(ids)}, but got {len(others)}."
            )
        if others * (len(ids) // len(others)) == ids:
            raise ValueError(f"contrast must be another answer than the target, but got {contrast!r} for both.")
        return others

    def _append_answer(self, arguments: Mapping[str, Any], ids: list[int]) -> dict[str, Any]:
        """Append the answer without its last token to the model's inputs."""
        if has_encoder(self.model):
            start = arguments["decoder_input_ids"]
            return {**arguments, "decoder_input_ids": torch.cat([start, start.new_tensor([ids[:-1]])], 1)}
        prompt = arguments["input_ids"]
        extended = {**arguments, "input_ids": torch.cat([prompt, prompt.new_tensor([ids[:-1]])], 1)}
        answer_values = ANSWER_VALUES | ({"token_type_ids": 1} if self.model.config.model_type == "paligemma" else {})
        for name, value in answer_values.items():
            if arguments.get(name) is not None:
                extended[name] = F.pad(arguments[name], (0, len(ids) - 1), value=value)
        if arguments.get("cross_attention_mask") is not None:  # Mllama: the answer attends like the prompt's last token
            mask = arguments["cross_attention_mask"]
            extended["cross_attention_mask"] = torch.cat([mask, *[mask[:, -1:]] * (len(ids) - 1)], 1)
        return extended


def check_version() -> None:
    """Raise an ImportError if transformers is too old."""
    import transformers  # takes seconds; here the model has loaded it already

    if int(transformers.__version__.partition(".")[0]) < 5:
        raise ImportError(f"AnswerEvidence needs transformers 5, but got {transformers.__version__}. Update it.")


def check_example(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's arguments in its precision; raise a ValueError unless they are one example."""
    if not isinstance(inputs, Mapping):
        raise ValueError(f"inputs must be a prompt, or of the model's processor, but got {type(inputs).__name__}.")
    if inputs.get("input_ids") is not None or not has_encoder(model):
        _check_ids(model, inputs.get("input_ids"), inputs.get("attention_mask"))
    elif inputs.get("encoder_outputs") is None:
        value = inputs.get(model.main_input_name)
        if not isinstance(value, Tensor) or len(value) != 1:
            raise ValueError(
                f"inputs must hold {model.main_input_name}, a tensor of one example, but got "
                f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}."
            )
    return place_inputs(model, {key: inputs[key] for key in inputs if key not in ("labels", "position_ids")})


def _check_ids(model: Any, ids: object, mask: object) -> None:
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        raise ValueError(f"inputs must hold input_ids, a tensor of whole numbers, but got {ids!r}.")
    if ids.dim() != 2 or len(ids) != 1 or not ids.shape[1]:
        raise ValueError(
            f"inputs must be of one example, input_ids of shape (1, tokens), but got {tuple(ids.shape)}. Explain "
            "examples one after the other."
        )
    known = (ids >= 0) & (ids < model.get_input_embeddings().weight.shape[0])
    unknown = ids[~known & (ids != image_token_id(model))]
    if len(unknown):
        raise ValueError(f"input_ids must be tokens of the model, but got {unknown.tolist()[:8]} among them.")
    if isinstance(mask, Tensor) and mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}, but got {tuple(mask.shape)}."
        )


def _last_position(model: Any) -> int | None:
    config = model.config.get_text_config(decoder=True)
    positions = getattr(config, "max_position_embeddings", getattr(config, "max_target_positions", None))
    return positions if isinstance(positions, int) else None


def _check_positions(model: Any, arguments: Mapping[str, Any], answer_tokens: int) -> None:
    """Raise a ValueError unless the decoder has positions for the prompt and the answer's tokens."""
    positions = _last_position(model)
    length = answer_tokens + arguments["decoder_input_ids" if has_encoder(model) else "input_ids"].shape[1]
    if positions is not None and length > positions:
        raise ValueError(
            f"inputs must fit the model's {positions} positions, prompt, pictures, sound and answer together, but got "
            f"{length} tokens. Shorten them."
        )
