"""The pass of a model that generates text, in which every word's evidence is read off the row that makes it.

A decoder makes word i + 1 of row i alone. So each layer's readout of a word depends on that layer's attention only at
the word's row, and what its attention wrote there is shared out among the columns: the evidence of all words takes one
forward and one backward pass, and of the attention only the words' rows.

Letters in shapes: W words, S tokens of a sequence, H heads, D head dimension.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_gmar.engine.checks import check_no_dropout
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, AttentionMode
from captum_gmar.engine.hooks.constants import detach_parameters, detach_tensor
from captum_gmar.engine.hooks.threads import limit_to_thread
from captum_gmar.engine.kernels.layer import attention_weights
from captum_gmar.engine.kernels.precision import wide
from captum_gmar.engine.models.attention_backend import attention_implementation, uncompiled


class RowEvidence(NamedTuple):
    """What every word of a sequence was fed by, summed over layers and heads, with its sign.

    Attributes:
        tokens: (W, S) by the tokens of the decoder's own sequence.
        encoded: (W, S') by the tokens that its cross-attention reads, if it has one.
        scores: (W,) what was explained of each word, of the whole model.
    """

    tokens: Tensor
    encoded: Tensor | None
    scores: Tensor


_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCTS = (torch.bmm, torch.matmul, Tensor.bmm, Tensor.matmul, Tensor.__matmul__)

Score = Callable[[Tensor], Tensor]  # of the logits (..., W, vocabulary), what is explained of each word (..., W)


def explain_last_rows(model: nn.Module, arguments: Mapping[str, Any], words: int, score: Score) -> RowEvidence:
    r"""Attention evidence of the words that the last rows make.

    .. math::
        R_{wj} = \sum_l \sum_h A_{l,h,ij} \; v_{l,h,j} \cdot \frac{\partial o_{l,w}}{\partial O_{l,h,i}}

    where i is the row of word w, O = A V, and :math:`o_{l,w}` the word's score if the final norm and the output
    embedding read what comes out of layer l.

    Args:
        model: of transformers, with a decoder of text.
        arguments: what it is called with, of one example, the answer included but for its last word.
        words: W, how many of the last rows of the decoder's sequence make one.
        score: of logits, what is explained of each word.

    Raises:
        RuntimeError: if the decoder's attention or layers cannot be met.
    """
    with torch.inference_mode(False), torch.enable_grad(), uncompiled(), _met_attention(model):
        reading, scores, gradients = _read_by_and_by(model, arguments, words, score) or _read_at_once(
            model, arguments, words, score
        )
    tokens = encoded = None
    for attended, gradient in zip(reading.attended, gradients, strict=True):
        evidence = attended.share_out(gradient)
        if attended.is_cross:
            encoded = evidence if encoded is None else encoded + evidence
        else:
            tokens = evidence if tokens is None else tokens + evidence
    if tokens is None:
        tokens = torch.zeros(words, reading.length, device=scores.device)
    return RowEvidence(tokens, encoded, scores)


def _read_at_once(model: nn.Module, arguments: Mapping[str, Any], words: int, score: Score) -> "_Read":
    """All layers read by one call of the output embedding, and whatever the model does after it."""
    layers = decoder_layers(model)
    reading = _RowReading(words, len(layers))
    with _rows_leave(layers, reading), _WordPass(reading):
        logits = model(**arguments, use_cache=False, return_dict=True).logits
    _check_read(model, reading, logits)
    of_layers = score(_rows_of_layers(logits, reading))
    gradients = torch.autograd.grad(of_layers.sum(), [attended.output for attended in reading.attended])
    return _Read(reading, of_layers[-1].detach(), gradients)


def _read_by_and_by(model: Any, arguments: Mapping[str, Any], words: int, score: Score) -> "_Read | None":
    """A few layers read after the others, so that the logits of all are never there together; None if the model does
    anything to logits after its output embedding."""
    layers, embedding = decoder_layers(model), model.get_output_embeddings()
    reading, calls = _RowReading(words, len(layers)), _Calls()
    with _WordPass(reading):
        with _rows_leave(layers, reading), calls.of_first_rows(embedding):
            logits = model(**arguments, use_cache=False, return_dict=True).logits
        if len(calls.inputs) != 1 or logits is not calls.output:
            return None
        hidden = calls.inputs[0]
        _check_read(model, reading, hidden)
        rows = _rows_of_layers(hidden, reading)
        of_rows: list[Tensor] = []
        at_once = max(1, reading.length // words)  # layers: as many rows as the model itself reads
        for few in torch.split(rows.detach(), at_once):
            scores = score(embedding(few.requires_grad_()))
            of_rows += torch.autograd.grad(scores.sum(), few)
    outputs = [attended.output for attended in reading.attended]
    return _Read(reading, scores[-1].detach(), torch.autograd.grad(rows, outputs, torch.cat(of_rows)))


class _Calls:
    """What the output embedding was called with, of which it gets the first row alone."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.output: Tensor | None = None

    @contextmanager
    def of_first_rows(self, embedding: nn.Module) -> Iterator[None]:
        @limit_to_thread
        def enter(module: nn.Module, args: Any) -> Any:
            self.inputs.append(args[0])
            return args[0][:1, :1], *args[1:]

        @limit_to_thread
        def leave(module: nn.Module, args: Any, output: Tensor) -> None:
            self.output = output

        with ExitStack() as stack:
            stack.callback(embedding.register_forward_pre_hook(enter).remove)
            stack.callback(embedding.register_forward_hook(leave).remove)
            yield


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of the decoder of text.

    Raises:
        ValueError: if there are none that can be told.
    """
    of_transformers: Any = model
    config: Any = getattr(model, "config", None)
    lists: dict[str, nn.ModuleList] = {}  # that lie in no other
    if hasattr(config, "get_text_config") and hasattr(model, "get_decoder") and of_transformers.get_output_embeddings():
        text: Any = config.get_text_config(decoder=True)
        number = getattr(text, "decoder_layers", None) or getattr(text, "num_hidden_layers", None)
        for name, module in of_transformers.get_decoder().named_modules():
            if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
                lists[name] = module
        lists = {name: layers for name, layers in lists.items() if len(layers) == number}
    if not lists:
        raise ValueError(
            f"model must be one of transformers that generates text, with its decoder's layers in a list. Got "
            f"{type(model).__name__} instead."
        )
    return list(lists.values())[-1]  # GIT's vision tower comes before its decoder


def _met_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Attention that can be met: torch's function, or written out, as some models have no other. Masks are made for the
    implementation that a model names, so only one that can't be met is changed."""
    names = {str(getattr(getattr(module, "config", None), "_attn_implementation", "")) for module in model.modules()}
    is_hidden = any(name.startswith(("flash_attention", "flex_attention")) for name in names)
    return attention_implementation(model, "sdpa") if is_hidden else nullcontext()


class _Attended(NamedTuple):
    """What one attention of a decoder layer read and wrote."""

    weights: Callable[[], Tensor]  # (..., W, S) of the words' rows
    value: Tensor  # (..., S, D)
    output: Tensor  # (..., S, D) of all rows
    is_cross: bool

    def share_out(self, gradient: Tensor) -> Tensor:
        """(W, S): of what the heads wrote to each word's row, times its gradient, each column's part."""
        weights = self.weights()
        written = gradient[..., -weights.shape[-2] :, :].to(weights.dtype) @ self.value.to(weights.dtype).mT
        return (weights * written).flatten(0, -3).sum(0)


class _Read(NamedTuple):
    """A pass, the words' scores (W,), and the gradient of what each attention wrote."""

    reading: "_RowReading"
    scores: Tensor
    gradients: Sequence[Tensor]


class _RowReading:
    """What is known of the pass so far."""

    def __init__(self, words: int, layers: int) -> None:
        self.words = words
        self.layers = layers
        self.layer: int | None = None  # the one that runs
        self.attended: list[_Attended] = []
        self.outputs: list[Tensor] = []  # of each layer, (1, W, hidden) of the words' rows
        self.length = 0  # of the decoder's sequence
        self.met: set[int] = set()  # layers whose attention was met
        self.written_out: dict[int, Tensor] = {}  # weights (..., S, S) that the running layer computed itself, by id

    def note(self, weights: Callable[[], Tensor], value: Tensor, output: Tensor, is_square: bool) -> Tensor:
        """What was attended, with the gradient to what was written, which is returned."""
        assert self.layer is not None
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.attended.append(_Attended(weights, value.detach(), output, self.layer in self.met or not is_square))
        self.met.add(self.layer)
        return output


class _WordPass(AttentionMode):
    """Within the block, attention of the decoder's layers is noted, and gradients begin at what it wrote."""

    def __init__(self, reading: _RowReading) -> None:
        super().__init__()
        self.reading = reading

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Runs the function on constant parameters, so that nothing is kept for gradients that nobody wants."""
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
        if getattr(func, "__name__", None) in ACCESS or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        output = func(*detach_parameters(tuple(args)), **detach_parameters(kwargs))
        return output if self.reading.layer is None else self._follow(func, args, output)

    def _follow(self, func: Callable[..., Any], args: Sequence[Any], output: Any) -> Any:
        """Meets attention that a layer writes out: a softmax, and the product of it and the values."""
        weights = self.reading.written_out
        if func in _SOFTMAX:
            weights[id(output)] = output
        elif not args or id(args[0]) not in weights:
            return output
        elif func in _PRODUCTS:
            of_rows = args[0].detach()[..., -self.reading.words :, :]
            weights.clear()
            return self.reading.note(lambda: wide(of_rows), args[1], output, args[0].shape[-1] == args[0].shape[-2])
        elif isinstance(output, Tensor) and output.shape[-2:] == args[0].shape[-2:]:
            weights[id(output)] = output
        return output

    def attend(self, call: AttentionCall) -> Tensor:
        """As torch does, and noted where it is a decoder layer's."""
        output, reading = call.run(), self.reading
        if reading.layer is None or call.query.dim() != 4:
            return output
        check_no_dropout(p=call.dropout_p)
        query, key, value, mask, *_ = call.expanded()
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., -reading.words :, :].clone()
        rows, key = query[..., -reading.words :, :].detach(), key.detach()

        def weights() -> Tensor:
            return attention_weights(wide(rows), wide(key), mask, call.scale)

        return reading.note(weights, value, output, query.shape[-2] == key.shape[-2])


@contextmanager
def _rows_leave(layers: nn.ModuleList, reading: _RowReading) -> Iterator[None]:
    """Within the block, in this thread, layers take their inputs as constants, and in place of what comes out of the
    last one leave the words' rows of all layers, in sequences as long as the decoder's, the last one filled up."""

    @limit_to_thread
    def enter(layer: nn.Module, args: Any, kwargs: Any) -> Any:
        reading.layer = len(reading.outputs)
        return tuple(map(detach_tensor, args)), {name: detach_tensor(value) for name, value in kwargs.items()}

    @limit_to_thread
    def leave(layer: nn.Module, args: Any, output: Any) -> Any:
        reading.layer = None
        reading.written_out.clear()
        hidden: Tensor = output if isinstance(output, Tensor) else output[0]
        reading.length = hidden.shape[-2]
        reading.outputs.append(hidden[..., -reading.words :, :])
        if len(reading.outputs) < len(layers):
            return None
        together = torch.cat([rows.to(hidden.device) for rows in reading.outputs], -2)
        together = F.pad(together, (0, 0, 0, -together.shape[-2] % reading.length)).view(-1, *hidden.shape[-2:])
        return together if isinstance(output, Tensor) else (together, *output[1:])

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(leave).remove)
        yield


def _check_read(model: nn.Module, reading: _RowReading, read: Tensor) -> None:
    """That what was read, (sequences, S, ...), holds the words' rows of all layers."""
    sequences = -(-reading.layers * reading.words // max(reading.length, 1))
    if len(reading.outputs) != reading.layers or read.shape[:2] != (sequences, reading.length):
        raise RuntimeError(
            f"Expected {type(model).__name__} to run its decoder's {reading.layers} layers once each and to read every "
            f"token by itself after them, but met {len(reading.outputs)} layers and got logits of shape "
            f"{tuple(read.shape)} for {reading.words} words."
        )
    if not reading.attended:
        raise RuntimeError(
            f"No attention was met in the decoder of {type(model).__name__}: it never calls "
            "torch.nn.functional.scaled_dot_product_attention in this thread. Load it with "
            'attn_implementation="sdpa".'
        )


def _rows_of_layers(read: Tensor, reading: _RowReading) -> Tensor:
    """(L, W, ...)"""
    return read.flatten(0, 1)[: reading.layers * reading.words].view(reading.layers, reading.words, -1)
