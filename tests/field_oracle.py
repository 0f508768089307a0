"""Attention evidence on any grids, in float64 and from the formula: nothing of the package is used here.

Each layer of a copy of the model whose later layers are gone is explained by itself: attention is what comes out of
each softmax, its gradient is autograd's, and where its columns lie is what the family's row says.
"""

import copy
from contextlib import contextmanager

import torch
from oracle import log_odds
from torch import nn
from torch.overrides import TorchFunctionMode


class Softmaxes(TorchFunctionMode):
    """Within the block, keeps what comes out of each softmax over tokens, of so many dimensions or more."""

    def __init__(self, dims=4):
        super().__init__()
        self.dims = dims
        self.kept = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, is_softmax = kwargs or {}, getattr(func, "__name__", "") == "softmax"
        if is_softmax and "dtype" in kwargs:  # which may be single precision
            kwargs = {**kwargs, "dtype": torch.float64}
        result = func(*args, **kwargs)
        if is_softmax and result.requires_grad and result.dim() >= self.dims:
            self.kept.append(result)
        return result


class Passing(nn.Module):
    """In the place of a layer: hands on what that layer adds to."""

    def __init__(self, layer, passes, in_tuple):
        super().__init__()
        self.passed_by, self.passes, self.in_tuple = layer, passes, in_tuple

    def forward(self, *args, **kwargs):
        tokens = self.passes(self.passed_by, args[0] if args else kwargs["hidden_states"])
        return (tokens, None) if self.in_tuple else tokens


def written_out(model):
    """A copy in float64 whose attention is computed as its formula says."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    return model


def columns(family, model, inputs, target, of):
    """Of each softmax the sum of A ⊙ G over heads and queries, if it has any, (N·sequences, tokens)."""
    with Softmaxes(dims=4 if family.has_queries else 3) as softmaxes:
        logits = of(model(inputs.double().requires_grad_(), *family.arguments).logits)
    logit = logits[(slice(None), *target)].sum() if isinstance(target, tuple) else logits[:, target].sum()
    gradients = torch.autograd.grad(logit, softmaxes.kept, allow_unused=True)
    products = [a * (torch.zeros_like(a) if g is None else g) for a, g in zip(softmaxes.kept, gradients, strict=True)]
    of_tokens = [product.sum((1, -2)) if family.has_queries else product for product in products]
    return [product.flatten(0, -2).detach() for product in of_tokens]


def evidence(family, model, inputs, target, of=log_odds):
    """What each softmax's columns give, (N·sequences, tokens): each of its layer's own score."""
    model = written_out(model)
    layers = [layer for stage in family.stages(model) for layer in stage]
    if not layers:
        return columns(family, model, inputs, target, of)
    each = len(family.places) // len(layers)  # attentions of a layer
    of_layers = []
    for number in range(len(layers)):
        with without_layers_after(family, model, inputs, number):
            cut = columns(family, model, inputs, target, of)
        of_layers += cut[number * each : (number + 1) * each]
    return of_layers


@contextmanager
def without_layers_after(family, model, inputs, number):
    """Within the block, the layers after this one are passed by."""
    layers = [(stage, place) for stage in family.stages(model) for place in range(len(stage))]
    in_tuple = _return_tuples(layers[0][0][0], model, inputs, family)
    later = [(stage, place, stage[place]) for stage, place in layers[number + 1 :]]
    for stage, place, layer in later:
        stage[place] = Passing(layer, family.passes, in_tuple)
    yield
    for stage, place, layer in later:
        stage[place] = layer


def _return_tuples(layer, model, inputs, family):
    kept = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(isinstance(output, tuple)))
    with torch.no_grad():
        model(inputs.double(), *family.arguments)
    handle.remove()
    return kept[0]


def field(of_tokens, place, examples):
    """(N, *grid), of what each token gives (N·sequences, tokens)."""
    shape, places = place
    cells = torch.zeros(examples, int(torch.tensor(shape).prod()) + 1, dtype=torch.float64)
    index = places.flatten() % cells.shape[1]  # those of no place at the end
    cells.index_add_(1, index, of_tokens.view(examples, -1))
    return cells[:, :-1].view(examples, *shape)


def on_finest(fields):
    """The sum (N, *grid), a place of a coarse grid spread evenly over those of the finest that it came from."""
    finest = tuple(max(sizes) for sizes in zip(*(f.shape[1:] for f in fields), strict=True))
    total = torch.zeros(len(fields[0]), *finest, dtype=torch.float64)
    for coarse in fields:
        spread = coarse
        for dim, size in enumerate(finest, 1):
            times = -(-size // coarse.shape[dim])
            owner = torch.arange(size) // times
            counts = owner.bincount(minlength=coarse.shape[dim])
            shape = [1] * spread.dim()
            shape[dim] = size
            spread = spread.index_select(dim, owner) / counts[owner].view(shape)
        total += spread
    return total
