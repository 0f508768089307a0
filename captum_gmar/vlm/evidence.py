"""What fed each word of an answer: of a model that generates text, from pictures, a prompt and its own words before."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.vlm.attribution import AnswerAttribution, share_out
from captum_gmar.vlm.decoder_pass import decoder_layers, explain_last_rows
from captum_gmar.vlm.image_tokens import PicturePrompt, image_token_id
from captum_gmar.vlm.layouts import picture_tokens
from captum_gmar.vlm.prompts import picture_sizes, prompt_inputs
from captum_gmar.vlm.word_scores import word_scores
from captum_gmar.vlm.words import pieces

Answer: TypeAlias = str | Sequence[int] | Tensor
"""An answer as text, which the processor's tokenizer cuts into tokens, or the tokens' ids."""

# What the model is told of every token beside its id, and what it is told of an answer's: text, that is attended to.
ANSWER_VALUES = {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": 0}


class AnswerEvidence:
    r"""
    Attention evidence of every word that a model generates, from one forward and one backward pass together.

    .. math::
        R_{wj} = \sum_l \sum_h A_{l,h,ij} \; v_{l,h,j} \cdot \frac{\partial o_{l,w}}{\partial (A_{l,h} v_{l,h})_i},
        \qquad r_{wj} = R_{wj} \Big/ \sum_k |R_{wk}|

    where row i of the decoder makes word w, and :math:`o_{l,w}` are the word's log-odds if the final norm and the
    output embedding read what comes out of layer l: what :class:`~captum_gmar.AttentionEvidence` is for a class. As a
    decoder makes each word of one row alone, words do not mix, and explaining all of them costs no more than one.

    What it does not mean: an image token was made by the vision tower of the whole picture, and a token of the prompt
    has been fed by those before it. What a word's row held before attention is shared out among nobody.

    The grammar follows Captum's ``LLMAttribution``: inputs and a target, which is the answer.

    Args:
        model: of transformers, that generates text: LLaVA, Qwen-VL, InternVL, SmolVLM, PaliGemma, Gemma 3, Pixtral,
            Mllama, BLIP-2, Florence-2, encoder–decoder captioners, or one of text alone. It is used as it is, and
            nothing of it is changed.
        processor: the model's processor or tokenizer, for prompts, answers given as text and tokens told as text;
            None: ids.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        ValueError: if it does not generate text.
        ImportError: if transformers is older than 5, whose models of this kind are built in other ways.

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
        self.tokenizer = getattr(processor, "tokenizer", processor)

    @classmethod
    def get_name(cls) -> str:
        """As it stands in tables and pictures."""
        return "Answer evidence"

    def attribute(
        self,
        inputs: Mapping[str, Any] | str,
        target: Answer | None = None,
        contrast: Answer | None = None,
        gen_args: Mapping[str, Any] | None = None,
        images: Any = None,
    ) -> AnswerAttribution:
        """
        Explains every token of an answer.

        Args:
            inputs: a prompt, which the processor's chat template is put around if it has one; or what the processor
                returned for pictures and prompt, of one example.
            target: the answer, as text or ids. Default: None, which lets the model generate it.
            contrast: what is taken off: one token, or as many as the target has; explains why each token rather than
                the contrast's.
            gen_args: passed to the model's ``generate``, where the answer is not given; by default it is greedy and of
                25 tokens at most.
            images: of a prompt: a picture or several, as the processor takes them. Where tiles of a picture are laid
                out by its size (InternVL, Mllama), this is read off a ``PIL.Image``, array or tensor.

        Returns:
            AnswerAttribution: the numbers, in single precision for half-precision models.

        Raises:
            TypeError: if an answer is neither text nor ids, or ``gen_args`` no mapping.
            ValueError: if the inputs are not those of one example, or the processor cannot take prompt and images or is
                another model's; the answer has no tokens or none that the tokenizer knows, is text without a tokenizer,
                or has with the prompt more tokens than the model has positions; or the contrast has another number of
                tokens or is the answer.
            RuntimeError: if the decoder's attention can't be met.
            FloatingPointError: if what is explained, or relevance, is NaN or infinite.
        """
        if not isinstance(gen_args or {}, Mapping):
            raise TypeError(f"gen_args must be a mapping of arguments of generate. Got {gen_args!r} instead.")
        sizes = picture_sizes(images)
        if sizes and 0 in chain(*sizes):
            raise ValueError(f"images must have pixels. Got sizes {sizes} instead.")
        if isinstance(inputs, str):
            inputs = prompt_inputs(self.model, self.processor, inputs, images)
        elif images is not None:
            raise ValueError(
                "images must go with a prompt. Got them beside what a processor returned: pass one of both."
            )
        arguments = _one_example(self.model, inputs)
        _check_positions(self.model, arguments, 0)
        ids = self._generate(arguments, dict(gen_args or {})) if target is None else self._token_ids(target, "target")
        against = None if contrast is None else self._token_ids(contrast, "contrast")
        if against is not None and len(against) not in (1, len(ids)):
            raise ValueError(
                f"contrast must be one token, or as many as the target's {len(ids)}. Got {len(against)} instead."
            )
        if against is not None and against * (len(ids) // len(against)) == ids:
            raise ValueError(f"contrast must be another answer than the target. Got {contrast!r} for both.")
        _check_positions(self.model, arguments, len(ids) - 1)
        answered = self._append_answer(arguments, ids)
        evidence = explain_last_rows(self.model, answered, len(ids), partial(word_scores, ids=ids, against=against))
        tokens, encoded, scores, totals = share_out(evidence)
        length = (tokens if encoded is None else encoded).shape[1]
        pictures = picture_tokens(PicturePrompt(self.model, arguments, length, sizes))
        return AnswerAttribution(
            tuple(pieces(self.tokenizer, ids)),
            *(tokens, encoded, scores, totals),
            tokens.shape[1] - len(ids) + 1,
            None if pictures is None else tuple(pictures),
            contrast=None
            if against is None
            else (" " * (self.tokenizer is None)).join(pieces(self.tokenizer, against)).strip(),
        )

    def _generate(self, arguments: Mapping[str, Any], gen_args: dict[str, Any]) -> list[int]:
        """The tokens that the model answers with, without those that only end the answer."""
        gen_args = {"max_new_tokens": 25, "do_sample": False, **gen_args}
        with torch.no_grad():
            sequence: list[int] = self.model.generate(**arguments, **gen_args)[0].tolist()
        length = 1 if _has_encoder(self.model) else arguments["input_ids"].shape[1]
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        answer = sequence[length:]
        while answer and answer[-1] in ends:
            answer.pop()
        if not answer:
            raise ValueError(
                "The model must answer with a token at least, but it ended at once. Pass an answer as target."
            )
        return answer

    def _token_ids(self, answer: Answer, name: str) -> list[int]:
        if isinstance(answer, str):
            if self.tokenizer is None:
                raise ValueError(f"{name} must be token ids where there is no processor. Got text instead: pass one.")
            text, answer = answer, self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            if not answer:
                raise ValueError(f"{name} must be text of at least one token. Got {text!r} instead.")
            if set(answer) == {getattr(self.tokenizer, "unk_token_id", None)}:
                raise ValueError(f"{name} must have a token that the tokenizer knows. Got {text!r}, of unknown ones.")
        if not isinstance(answer, Tensor | Sequence) or isinstance(answer, bytes):
            raise TypeError(f"{name} must be text or token ids. Got {answer!r} instead.")
        ids: list[Any] = answer.flatten().tolist() if isinstance(answer, Tensor) else list(answer)
        words = self.model.get_output_embeddings().weight.shape[0]
        if not ids or any(type(number) is not int or not 0 <= number < words for number in ids):
            raise ValueError(f"{name} must be at least one token of the model's {words}. Got {ids[:8]} instead.")
        return ids

    def _append_answer(self, arguments: Mapping[str, Any], ids: list[int]) -> dict[str, Any]:
        """What the model is called with: the answer but for its last token, which feeds no other."""
        if _has_encoder(self.model):
            start = getattr(self.model.generation_config, "decoder_start_token_id", None)
            start = start if start is not None else getattr(self.model.config, "decoder_start_token_id", None)
            if start is None:
                raise ValueError(
                    f"{type(self.model).__name__} must have a decoder_start_token_id in its generation_config, with "
                    "which its answers begin. Got none."
                )
            device = next(self.model.parameters()).device
            return {**arguments, "decoder_input_ids": torch.tensor([[start, *ids[:-1]]], device=device)}
        prompt = arguments["input_ids"]
        together = {**arguments, "input_ids": torch.cat([prompt, prompt.new_tensor([ids[:-1]])], 1)}
        answer_values = ANSWER_VALUES | ({"token_type_ids": 1} if self.model.config.model_type == "paligemma" else {})
        for name, value in answer_values.items():
            if arguments.get(name) is not None:
                together[name] = F.pad(arguments[name], (0, len(ids) - 1), value=value)
        if arguments.get("cross_attention_mask") is not None:  # Mllama's: an answer sees what the prompt's end sees
            mask = arguments["cross_attention_mask"]
            together["cross_attention_mask"] = torch.cat([mask, *[mask[:, -1:]] * (len(ids) - 1)], 1)
        return together


def check_version() -> None:
    """
    Raises:
        ImportError: if transformers is too old for what reads answers.
    """
    import transformers  # which takes seconds to load: the model's own module has loaded it

    if int(transformers.__version__.partition(".")[0]) < 5:
        raise ImportError(f"AnswerEvidence needs transformers 5 or newer. Got {transformers.__version__} instead.")


def _has_encoder(model: Any) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False))


def _one_example(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, checked to be of one example."""
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"inputs must be a prompt, or what the model's processor returned. Got {type(inputs).__name__} instead."
        )
    if inputs.get("input_ids") is not None or not _has_encoder(model):
        _check_ids(model, inputs.get("input_ids"), inputs.get("attention_mask"))
    return {name: value for name, value in inputs.items() if name not in ("labels", "position_ids")}


def _check_ids(model: Any, ids: object, mask: object) -> None:
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        raise ValueError(f"inputs must hold input_ids, a tensor of whole numbers. Got {ids!r} instead.")
    if ids.dim() != 2 or len(ids) != 1 or not ids.shape[1]:
        raise ValueError(
            f"inputs must be of one example, input_ids of shape (1, tokens). Got {tuple(ids.shape)} instead: explain "
            "examples one after the other."
        )
    known = (ids >= 0) & (ids < model.get_input_embeddings().weight.shape[0])
    unknown = ids[~known & (ids != image_token_id(model))]
    if len(unknown):
        raise ValueError(f"input_ids must be tokens of the model. Got {unknown.tolist()[:8]} among them.")
    if isinstance(mask, Tensor) and mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}. Got {tuple(mask.shape)} instead."
        )


def _check_positions(model: Any, arguments: Mapping[str, Any], answered: int) -> None:
    """That the decoder has a position for every token of the prompt and of so many of the answer."""
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    ids = None if _has_encoder(model) else arguments.get("input_ids")
    length = answered + (0 if ids is None else ids.shape[1])
    if isinstance(positions, int) and length > positions:
        raise ValueError(
            f"inputs must be of at most the model's {positions} positions, prompt, pictures and answer together. Got "
            f"{length} tokens instead: shorten the prompt, or scale the pictures down."
        )
