"""Forward and backward pass of a text decoder that explains all words of an answer.

A decoder makes word i + 1 from row i, so a word depends on each layer's attention only at its row. One pass explains
all words and needs attention weights only of their rows.

Letters in shapes: L layers, W words, S tokens of a sequence, H heads, D head dimension.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.hooks.attention_mode import AttentionCall, ConstantParameterMode, check_no_dropout
from captum_gmar.engine.hooks.constants import detach_tensor
from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.kernels.layer import attention_weights
from captum_gmar.engine.kernels.precision import widen
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager


class RowEvidence(NamedTuple):
    """Signed evidence and attention × value norm for each word, summed over layers and heads."""

    tokens: Tensor  # (W, S) of the decoder sequence's tokens
    encoded: Tensor | None  # (W, S') of the encoder's tokens, for models with cross-attention
    scores: Tensor  # (W,) explained scores of the words
    attended: Tensor | None = None  # attention × value norm, (W, S') of the encoder's tokens if there are, else (W, S)


_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCTS = (torch.bmm, torch.matmul, Tensor.bmm, Tensor.matmul, Tensor.__matmul__)

Score = Callable[[Tensor], Tensor]  # maps logits (..., W, vocabulary) to the explained scores (..., W)
# A pass, the words' scores (W,), and the gradient of each attention output.
_PassResult: TypeAlias = "tuple[_RowCapture, Tensor, Sequence[Tensor]]"


def explain_last_rows(model: nn.Module, arguments: Mapping[str, Any], words: int, score: Score) -> RowEvidence:
    r"""Compute attention evidence for the words of the last W rows, of one example with the answer except its last
    word.

    .. math::
        R_{wj} = \sum_l \sum_h A_{l,h,ij} \; v_{l,h,j} \cdot \frac{\partial o_{l,w}}{\partial O_{l,h,i}}

    where i is the row of word w, O = A V, and :math:`o_{l,w}` the word's score if the final norm and the output
    embedding follow layer l directly.
    """
    given = model, arguments, words, score
    with torch.inference_mode(False), torch.enable_grad(), force_eager(), _capturable_attention(model):
        capture, scores, gradients = _explain_in_chunks(*given) or _explain_all_layers(*given)
    sums: dict[bool, Tensor] = {}  # evidence and attention × value norm, of cross-attention and of the sequence's own
    for attention, gradient in zip(capture.attention, gradients, strict=True):
        part = attention.explain(gradient, capture.rows)
        sums[attention.is_cross] = sums[attention.is_cross] + part if attention.is_cross in sums else part
    if False not in sums:
        sums[False] = torch.zeros(2, words, capture.length, device=scores.device)
    tokens, attended = sums[False]
    encoded, attended = sums.get(True, (None, attended))
    return RowEvidence(tokens, encoded, scores, attended)


def explain_rows(
    model: Any, layers: nn.ModuleList, run: Callable[[], Tensor], rows: Tensor, score: Score
) -> RowEvidence:
    """Compute the same for a run that returns hidden states or embeddings of all tokens, with word w at row w of (W,).

    Words may share a row.
    """
    with torch.inference_mode(False), torch.enable_grad(), force_eager(), _capturable_attention(model):
        capture = _RowCapture(len(rows), len(layers), rows)
        scores = score(_run_to_rows(model, layers, capture, run))
        outputs = [attention.output for attention in capture.attention]
        sums = torch.zeros(2, len(rows), capture.length, dtype=scores.dtype, device=scores.device)
        turns = (rows[:, None] == rows).tril(-1).sum(1)  # words that share a row take turns
        for turn in range(int(turns.max()) + 1):
            words = turns == turn
            gradients = torch.autograd.grad(scores[:, words].sum(), outputs, retain_graph=True)
            for attention, gradient in zip(capture.attention, gradients, strict=True):
                sums[:, words] += attention.explain(gradient, rows)[:, words]
    return RowEvidence(sums[0], None, scores[-1].detach(), sums[1])


def _explain_all_layers(model: nn.Module, arguments: Mapping[str, Any], words: int, score: Score) -> _PassResult:
    """Compute the logits of all layers in one call of the output embedding and of later operations."""
    layers = decoder_layers(model)
    capture = _RowCapture(words, len(layers))
    options = {**arguments, "use_cache": False, "return_dict": True}
    scores = score(_run_to_rows(model, layers, capture, lambda: model(**options).logits))
    outputs = [attention.output for attention in capture.attention]
    return capture, scores[-1].detach(), torch.autograd.grad(scores.sum(), outputs)


def _run_to_rows(model: nn.Module, layers: nn.ModuleList, capture: "_RowCapture", run: Callable[[], Tensor]) -> Tensor:
    """Return what the model makes of the words' rows after each layer, in place of those after the last."""
    with _replace_output_by_rows(layers, capture), capture:
        output = run()
    _check_rows(model, capture, output)
    return _unpack_rows(output, capture)


def _explain_in_chunks(model: Any, arguments: Mapping[str, Any], words: int, score: Score) -> "_PassResult | None":
    """Compute the logits of a few layers at a time to save memory.

    Returns None if the model changes logits after its output embedding.
    """
    layers, embedding = decoder_layers(model), model.get_output_embeddings()
    capture = _RowCapture(words, len(layers))
    with capture:
        with _replace_output_by_rows(layers, capture), _limit_to_first_row(embedding) as calls:
            logits = model(**arguments, use_cache=False, return_dict=True).logits
        if len(calls) != 2 or logits is not calls[1]:
            return None
        hidden = calls[0]
        _check_rows(model, capture, hidden)
        rows = _unpack_rows(hidden, capture)
        row_gradients: list[Tensor] = []
        chunk = max(1, capture.length // words)  # layers: a chunk has as many rows as the model's own sequence
        for chunk_rows in torch.split(rows.detach(), chunk):
            scores = score(embedding(chunk_rows.requires_grad_()))
            row_gradients += torch.autograd.grad(scores.sum(), chunk_rows)
    outputs = [attention.output for attention in capture.attention]
    return capture, scores[-1].detach(), torch.autograd.grad(rows, outputs, torch.cat(row_gradients))


@contextmanager
def _limit_to_first_row(embedding: nn.Module) -> Iterator[list[Tensor]]:
    """Run the output embedding on its first row only, and collect input and output of each call."""
    calls: list[Tensor] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        calls.append(args[0])
        return (args[0][:1, :1], *args[1:]), kwargs

    def leave(module: nn.Module, args: Any, output: Tensor) -> None:
        calls.append(output)

    with hook_modules([embedding], enter, leave):
        yield calls


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the text decoder's layers; raise a ValueError if the model has none."""
    generator: Any = model
    config: Any = getattr(model, "config", None)
    lists: dict[str, nn.ModuleList] = {}  # outermost lists
    if hasattr(config, "get_text_config") and hasattr(model, "get_decoder") and generator.get_output_embeddings():
        text: Any = config.get_text_config(decoder=True)
        parts = config, text  # a flat config of an encoder-decoder loses decoder_layers as it becomes a text config
        number = next(
            (part.decoder_layers for part in parts if hasattr(part, "decoder_layers")), text.num_hidden_layers
        )
        for name, module in generator.get_decoder().named_modules():
            if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
                lists[name] = module
        lists = {name: layers for name, layers in lists.items() if len(layers) == number}
    if not lists:
        name = type(model).__name__
        advice = " Load a recogniser with a decoder, or use Captum's IntegratedGradients." if "CTC" in name else ""
        raise ValueError(
            f"model must be one of transformers that generates text, with its decoder's layers in a list, but got "
            f"{name}.{advice}"
        )
    return list(lists.values())[-1]  # GIT's vision tower comes before its decoder


def _capturable_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Switch flash and flex attention to "sdpa"; masks depend on the implementation, so others do not change."""
    names = {str(getattr(getattr(module, "config", None), "_attn_implementation", "")) for module in model.modules()}
    is_hidden = any(name.startswith(("flash_attention", "flex_attention")) for name in names)
    return attention_implementation(model, "sdpa") if is_hidden else nullcontext()


class _CapturedAttention(NamedTuple):
    """One attention of a decoder layer."""

    weights: Callable[[], Tensor]  # returns (..., W, S) of the words' rows
    value: Tensor  # (..., S, D)
    output: Tensor  # (..., S, D) of all rows
    is_cross: bool

    def explain(self, gradient: Tensor, rows: Tensor | slice) -> Tensor:
        """Return evidence and attention × value norm (2, W, S): each column's part of the words' rows, times their
        gradient and in size."""
        weights = self.weights()
        value = self.value.to(weights.dtype)
        products = gradient[..., rows, :].to(weights.dtype) @ value.mT
        norms = value.norm(dim=-1)[..., None, :]
        return torch.stack([(weights * part).flatten(0, -3).sum(0) for part in (products, norms)])


class _RowCapture(ConstantParameterMode):
    """Mode that captures each layer's attention, at whose outputs gradients begin, and the words' rows."""

    def __init__(self, words: int, layers: int, rows: Tensor | None = None) -> None:
        super().__init__()
        self.words = words
        self.rows: Tensor | slice = slice(-words, None) if rows is None else rows  # of the words, in a sequence
        self.layers = layers
        self.layer: int | None = None  # the running layer
        self.attention: list[_CapturedAttention] = []
        self.outputs: list[Tensor] = []  # rows (1, W, hidden) of each layer's output
        self.length = 0  # of the decoder's sequence
        self.attended_layers: set[int] = set()
        self.softmax_results: dict[int, Tensor] = {}  # weights (..., S, S) of the running layer, by id

    def record(self, weights: Callable[[], Tensor], value: Tensor, output: Tensor, is_square: bool) -> Tensor:
        """Record an attention and return its output, which requires grad."""
        assert self.layer is not None
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        is_cross = self.layer in self.attended_layers or not is_square
        self.attention.append(_CapturedAttention(weights, value.detach(), output, is_cross))
        self.attended_layers.add(self.layer)
        return output

    def run_on_constants(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function, and record attention."""
        output = func(*args, **kwargs)
        return output if self.layer is None else self._track_softmax(func, args, output)

    def _track_softmax(self, func: Callable[..., Any], args: Sequence[Any], output: Any) -> Any:
        """Record attention without torch's function: a softmax and its product with values."""
        weights = self.softmax_results
        if func in _SOFTMAX:
            weights[id(output)] = output
        elif not args or id(args[0]) not in weights:
            return output
        elif func in _PRODUCTS:
            rows = args[0].detach()[..., self.rows, :]
            weights.clear()
            return self.record(lambda: widen(rows), args[1], output, args[0].shape[-1] == args[0].shape[-2])
        elif isinstance(output, Tensor) and output.shape[-2:] == args[0].shape[-2:]:
            weights[id(output)] = output
        return output

    def attend(self, call: AttentionCall) -> Tensor:
        """Run torch's attention, and record it in decoder layers."""
        output = call.run()
        if self.layer is None or call.query.dim() != 4:
            return output
        check_no_dropout(p=call.dropout_p)
        query, key, value, mask, *_ = call.expand_heads()
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., self.rows, :].clone()
        rows, key = query[..., self.rows, :].detach(), key.detach()

        def weights() -> Tensor:
            return attention_weights(widen(rows), widen(key), mask, call.scale)

        return self.record(weights, value, output, query.shape[-2] == key.shape[-2])


@contextmanager
def _replace_output_by_rows(layers: nn.ModuleList, capture: _RowCapture) -> Iterator[None]:
    """Detach the inputs of layers, and replace the last layer's output by the words' rows of all layers.

    The rows are packed into sequences of the decoder's length; the last sequence is padded.
    """

    def enter(layer: nn.Module, args: Any, kwargs: Any) -> Any:
        capture.layer = len(capture.outputs)
        return tuple(map(detach_tensor, args)), {name: detach_tensor(value) for name, value in kwargs.items()}

    def leave(layer: nn.Module, args: Any, output: Any) -> Any:
        capture.layer = None
        capture.softmax_results.clear()
        hidden: Tensor = output if isinstance(output, Tensor) else output[0]
        capture.length = hidden.shape[-2]
        capture.outputs.append(hidden[..., capture.rows, :])
        if len(capture.outputs) < len(layers):
            return None
        rows = torch.cat([rows.to(hidden.device) for rows in capture.outputs], -2)
        rows = F.pad(rows, (0, 0, 0, -rows.shape[-2] % capture.length)).view(-1, *hidden.shape[-2:])
        return rows if isinstance(output, Tensor) else (rows, *output[1:])

    with hook_modules(layers, enter, leave):
        yield


def _check_rows(model: nn.Module, capture: _RowCapture, rows: Tensor) -> None:
    """Raise a RuntimeError unless (sequences, S, ...) holds the words' rows of all layers."""
    sequences = -(-capture.layers * capture.words // max(capture.length, 1))
    if len(capture.outputs) != capture.layers or rows.shape[:2] != (sequences, capture.length):
        raise RuntimeError(
            f"{type(model).__name__} must run its decoder's {capture.layers} layers once each and read every token by "
            f"itself, but runs {len(capture.outputs)} layers and returns logits of shape {tuple(rows.shape)} for "
            f"{capture.words} words. Pass a model of transformers."
        )
    if not capture.attention:
        raise RuntimeError(
            f"{type(model).__name__} needs calls of torch.nn.functional.scaled_dot_product_attention in its decoder "
            'and this thread, but makes none. Load it with attn_implementation="sdpa".'
        )


def _unpack_rows(rows: Tensor, capture: _RowCapture) -> Tensor:
    """Return rows (L, W, ...) of packed sequences."""
    return rows.flatten(0, 1)[: capture.layers * capture.words].view(capture.layers, capture.words, -1)
