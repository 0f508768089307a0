"""The formulas in float64, slowly and from the papers' pages: nothing of the package is used here.

Of each method, the whole matrix R (N, T, T), multiplied out layer by layer: row i is the relevance seen from token i.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def not_of_one_pass(*_, **__):
    raise LookupError("The matrices that one pass returns do not hold what this formula needs.")


@dataclass
class Dense:
    """A and G of every layer (N, H, T, T), first layer first."""

    attention: list[Tensor]
    gradient: list[Tensor]
    truncated: Callable[..., "Dense"] = not_of_one_pass  # of the model cut after a layer, and of its log-odds
    traced: Callable[..., "Traced"] = not_of_one_pass  # of the tokens between its layers
    patches: int = 0  # which are the last tokens
    pooling: Tensor | None = None  # (N, H, queries, T) of attention that pools what the layers return

    @cached_property
    def own_gradient(self):
        """Of each layer's own logit."""
        return [self.truncated(layer).gradient[layer] for layer in range(len(self.attention))]

    @cached_property
    def own_gradient_of_log_odds(self):
        return [self.truncated(layer, log_odds).gradient[layer] for layer in range(len(self.attention))]


class WrittenOut(TorchFunctionMode):
    """Within the block, attention is computed as its formula says, and kept."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.met = []  # query, key, value and output
        self.pooling = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self.attend(*args, **(kwargs or {}))

    def attend(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        attention = scores.softmax(-1)
        if query.shape[-2] != key.shape[-2]:
            self.pooling = attention.detach()
            return attention @ value
        self.kept.append(attention)
        self.met.append((query, key, value, attention @ value))
        return self.met[-1][-1]


class Constant(WrittenOut):
    """And of attention, gates and denominators the gradient is not taken."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.layer_norm:
            return self.layer_norm(*args, **kwargs)
        if func is F.gelu:
            return self.gelu(*args, **kwargs)
        if func is F.silu:
            return args[0] * args[0].detach().sigmoid()
        if func.__name__ in ("mul", "__mul__") and all(isinstance(arg, Tensor) and arg.grad_fn for arg in args):
            return (args[0] * args[1].detach() + args[0].detach() * args[1]) / 2
        if func is F.multi_head_attention_forward:
            return self.multi_head_attention(*args, **kwargs)
        if func in (torch.sigmoid, Tensor.sigmoid, torch.softmax, Tensor.softmax):
            return func(*args, **kwargs).detach()
        return super().__torch_function__(func, types, args, kwargs)

    def attend(self, query, key, value, *args, **kwargs):
        return super().attend(query.detach(), key.detach(), value, *args, **kwargs)

    def layer_norm(self, x, shape, weight=None, bias=None, eps=1e-5):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach() * weight + bias

    def gelu(self, x, approximate="none"):
        inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        gate = (1 + torch.tanh(inner)) / 2 if approximate == "tanh" else torch.special.ndtr(x)
        return x * gate.detach()

    def multi_head_attention(self, query, key, value, hidden, heads, weight, bias, *args, **kwargs):
        """Of tokens first, as torch's module takes them, and its projection the last of what the module passes."""
        out_weight, out_bias = args[4:6]
        parts = zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
        by_head = [(t @ w.mT + b).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for t, w, b in parts]
        attended = self.attend(*by_head)  # (N, H, T, D)
        return attended.permute(2, 0, 1, 3).flatten(2) @ out_weight.mT + out_bias, None


@dataclass
class Traced:
    """What is met between the layers, and its gradient."""

    tokens: list[Tensor]  # (N, T, hidden) L + 1 times
    gradients: list[Tensor]
    normalised: Tensor  # before the last attention
    normalised_gradient: Tensor
    attention: list[tuple[Tensor, ...]]  # query, key and value of each layer (N, H, T, D), and the output's gradient

    @property
    def last(self):
        return self.attention[-1]


def written_out(model, forward, inputs, targets, of=lambda logits: logits):
    """A and G of a float64 copy of any model that calls ``F.scaled_dot_product_attention``."""
    model = copy.deepcopy(model).double()
    with WrittenOut() as written, torch.enable_grad():
        logits = of(forward(model, inputs.double()))
    logit = sum(logits[example, target] for example, target in enumerate(targets))
    gradients = torch.autograd.grad(logit, written.kept)
    return Dense([a.detach() for a in written.kept], list(gradients), pooling=written.pooling)


def without_layers_after(model, layers, layer):
    """A copy of the model in which ``layer`` is the last of ``layers``, its encoder."""
    names = [name for name, module in model.named_modules() if list(module.children()) == layers]
    shorter = copy.deepcopy(model)
    del shorter.get_submodule(names[0])[layer + 1 :]
    return shorter


def with_truncations(model, layers, forward, inputs, targets):
    """What ``written_out`` gives of the model and, when asked, of it without the layers after one of ``layers``."""

    def dense(other, *of):
        return written_out(other, forward, inputs, targets, *of)

    record = dense(model)
    record.truncated = lambda layer, *of: dense(without_layers_after(model, layers, layer), *of)
    record.traced = cache(partial(between, model, layers, forward, inputs, targets))
    return record


def between(model, layers, forward, inputs, targets, balanced=False, of=lambda logits: logits, dtype=torch.float64):
    """What is met between ``layers`` of a copy of the model, by hooks of its modules."""
    (name,) = [name for name, module in model.named_modules() if list(module.children()) == layers]
    model = copy.deepcopy(model).to(dtype)
    copied = list(model.get_submodule(name).children())
    tokens, normalised = [], []
    for layer in copied:
        layer.register_forward_pre_hook(lambda layer, args: tokens.append(args[0]))
    copied[-1].register_forward_hook(
        lambda layer, args, output: tokens.append(output if isinstance(output, Tensor) else output[0])
    )
    norm = next(module for module in copied[-1].modules() if isinstance(module, nn.LayerNorm))
    norm.register_forward_hook(lambda layer, args, output: normalised.append(output))
    with Constant() if balanced else WrittenOut() as mode, torch.enable_grad():
        logits = forward(model, inputs.to(dtype))
    logits = of(logits)
    logit = sum(logits[example, target] for example, target in enumerate(targets))
    of_layers = mode.met[: len(copied)]  # those after it pool what leaves the last layer
    gradients = torch.autograd.grad(logit, [*tokens, *normalised, *(output for *_, output in of_layers)])
    detached = [tensor.detach() for tensor in (*tokens, *normalised)]
    ends = len(detached)
    attention = [
        (*(tensor.detach() for tensor in inputs), gradient)
        for (*inputs, _), gradient in zip(of_layers, gradients[ends:], strict=True)
    ]
    return Traced(detached[:-1], list(gradients[: ends - 1]), detached[-1], gradients[ends - 1], attention)


def log_odds(logits):
    probability = logits.softmax(-1)
    return probability.log() - (1 - probability).log()


def float64_softmax(scores, dim, dtype=None):
    return torch.softmax(scores, dim)


def attention_and_gradient(model, inputs, targets):
    """A and G of every layer (N, H, T, T), first layer first, of a float64 copy of the model, eager."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    eager = type(model)(config)
    eager.load_state_dict(model.state_dict())
    with mock.patch("torch.nn.functional.softmax", float64_softmax):  # transformers asks for float32 there
        output = eager.double().eval()(inputs.double().requires_grad_(), output_attentions=True)
    logit = sum(output.logits[example, target] for example, target in enumerate(targets))
    gradients = torch.autograd.grad(logit, output.attentions)
    return [a.detach() for a in output.attentions], list(gradients)


def head_importance(gradients, norm):
    """(N, L, H), heads alike where none has any."""
    g = torch.stack(gradients, 1)  # (N, L, H, T, T)
    terms = {"l1": g.abs(), "l2": g.square(), "positive": g.clamp(min=0)}[norm]
    scores = terms.sum((-2, -1)) ** (0.5 if norm == "l2" else 1)
    total = scores.sum(-1, keepdim=True)
    return torch.where(total > 0, scores / total, 1 / scores.shape[-1])


def head_means(matrices, weights=None):
    """The heads' mean (N, T, T) of every layer, or their sum weighted by (N, L, H)."""
    if weights is None:
        return [matrix.mean(1) for matrix in matrices]
    return [torch.einsum("nh,nhij->nij", weights[:, layer], matrix) for layer, matrix in enumerate(matrices)]


def positive_parts(dense):
    return [(a * g).clamp(min=0) for a, g in zip(dense.attention, dense.gradient, strict=True)]


def multiply_out(layers, residual=1.0, recursion="rollout", start_layer=0):
    """R of fused layers (N, T, T), first layer first."""
    identity = torch.eye(layers[0].shape[-1], dtype=torch.float64)
    rollout = identity.expand_as(layers[0])
    for layer in layers[start_layer:]:
        if recursion == "additive":
            rollout = rollout @ layer + residual * identity
            continue
        step = layer + residual * identity
        step = step / step.sum(-1, keepdim=True)
        rollout = step @ rollout if recursion == "rollout" else rollout @ step
    return rollout


def attention_rollout(dense, head_fusion="mean", **options):
    fused = [{"mean": a.mean(1), "max": a.max(1).values, "min": a.min(1).values}[head_fusion] for a in dense.attention]
    return multiply_out(fused, **options)


def raw_attention(dense):
    return dense.attention[-1].mean(1)


def gmar(attentions, gradients, norm, **options):
    return multiply_out(head_means(attentions, head_importance(gradients, norm)), **options)


def gradient_rollout(dense, norm=None, residual=1.0, start_layer=0):
    weights = None if norm is None else head_importance(dense.gradient, norm)
    fused = head_means(positive_parts(dense), weights)
    rollout = torch.eye(fused[0].shape[-1], dtype=torch.float64).expand_as(fused[0])
    for layer in fused[start_layer:]:
        rollout = residual * rollout + layer @ rollout
    return rollout


def attention_grad_cam(dense):
    return positive_parts(dense)[-1].mean(1)


def gmar_plus_plus(dense, **options):
    return multiply_out(head_means(positive_parts(dense), head_importance(dense.gradient, "positive")), **options)


def grad_sam(dense, start_layer=0):
    return layer_mean(positive_parts(dense)[start_layer:])


def legrad(dense, start_layer=0):
    return layer_mean([gradient.clamp(min=0) for gradient in dense.own_gradient[start_layer:]])


def attention_evidence(dense, start_layer=0):
    products = [a * g for a, g in zip(dense.attention, dense.own_gradient_of_log_odds, strict=True)]
    given = torch.stack([product.sum((1, 2)) for product in products[start_layer:]]).sum(0)  # (N, T)
    shares = given / given.abs().sum(-1, keepdim=True)
    return for_every_token(shares)


def times_gradient(traced):
    """(N, T) of what enters each layer, and of what leaves the last."""
    return [(h * g).sum(-1) for h, g in zip(traced.tokens, traced.gradients, strict=True)]


def full_grad_plus(dense, **options):
    return for_every_token(torch.stack(times_gradient(dense.traced(**options))[:-1]).mean(0))


def evidence_parts(dense):
    """What tokens hold that enter each layer, what prefix tokens read of them, query by query, and what is left."""
    traced = dense.traced(balanced=True, of=log_odds)
    *held, left = times_gradient(traced)
    read = torch.zeros_like(left)
    for attention, (_, _, value, gradient) in zip(dense.attention, traced.attention, strict=True):
        for i in range(left.shape[1] - dense.patches):
            read = read + (attention[:, :, i] * torch.einsum("nhtd,nhd->nht", value, gradient[:, :, i])).sum(1)
    return held, read, left


def token_evidence(dense):
    held, read, left = evidence_parts(dense)
    total = sum(held) / len(held) + left + read
    return for_every_token(total / total.abs().sum(-1, keepdim=True))


def attcat(dense, **options):
    leaving = times_gradient(dense.traced(**options))[1:]
    return for_every_token(sum(a.mean((1, 2)) * given for a, given in zip(dense.attention, leaving, strict=True)))


def cdam(dense):
    traced = dense.traced()
    return for_every_token((traced.normalised * traced.normalised_gradient).sum(-1))


def grad_eclip(dense):
    """Token by token; similarities are compared among the patches."""
    query, key, value, gradient = (tensor.transpose(1, 2).flatten(2) for tensor in dense.traced().last)
    (examples, tokens, _), patches = query.shape, dense.patches
    row = torch.zeros(examples, tokens, dtype=torch.float64)
    for example in range(examples):
        for i in range(tokens):
            similarity = F.cosine_similarity(query[example, i], key[example], dim=-1)
            low, high = similarity[-patches:].min(), similarity[-patches:].max()
            loosened = (similarity - low) / (high - low) if high > low else torch.ones(())
            row[example] += loosened * (value[example] @ gradient[example, i])
    return for_every_token(row.clamp(min=0))


def for_every_token(row):
    return row[:, None].expand(-1, row.shape[-1], -1)


def layer_mean(matrices):
    """The same row for every token: the mean over layers, heads and query rows."""
    return for_every_token(torch.stack([matrix.mean((1, 2)) for matrix in matrices]).mean(0))
