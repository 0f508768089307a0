"""What the modules of a model say of themselves, read in one pass over them.

A pass asks for some twenty names that most modules lack, and ``getattr`` takes longest where there is nothing. Nothing
is kept from one call to the next, as a model may change between them.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

# The names that transformers, timm and torchvision give to the tokens before the patches.
CLS_PARAMETERS = ("cls_token", "class_token", "class_embedding")
DISTILLATION_PARAMETERS = ("dist_token", "distillation_token")
REGISTER_PARAMETERS = ("reg_token", "register_tokens")
PREFIX_PARAMETERS = CLS_PARAMETERS + DISTILLATION_PARAMETERS + REGISTER_PARAMETERS
QUERY_PARAMETERS = ("detection_tokens", "det_token")  # tokens behind the patches
SWITCHES = ("grad_checkpointing", "gradient_checkpointing", "drop_prob")
POOLING = ("global_pool", "pool_include_prefix", "head_dist")
FUSED = "fused_attn"  # by which timm's attention calls torch's, or else writes it out
NAMES = frozenset((*PREFIX_PARAMETERS, *QUERY_PARAMETERS, *SWITCHES, *POOLING, FUSED, "config"))


class Survey:
    """Of a model, as it is now.

    Attributes:
        model: which it is of.
        named: each module by its name, as ``model.named_modules()`` has them.
        modules: the first of each class, and all that have any of NAMES that is not None, with these.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named = dict(named_modules(model))
        self.modules: list[tuple[nn.Module, dict[str, Any]]] = []
        of_class: dict[type, frozenset[str]] = {}
        for module in self.named.values():
            kind = type(module)
            is_first = kind not in of_class
            if is_first:
                of_class[kind] = _names_of_class(kind)
            names = _names_of(module, of_class[kind])
            if names or is_first:
                self.modules.append((module, names))

    def each(self, *names: str) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
        """The modules that have one of these names, with all that they have."""
        wanted = set(names)
        return ((module, values) for module, values in self.modules if not wanted.isdisjoint(values))

    def values(self, name: str) -> Iterator[Any]:
        """Of all modules that have this name."""
        return (values[name] for _, values in self.modules if name in values)

    def tokens(self, names: tuple[str, ...]) -> list[int]:
        """How many tokens each module keeps under these names, of those that keep any."""
        return [number for _, values in self.each(*names) if (number := _count(values, names))]


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As ``model.named_modules()`` has them, of which each level of nesting takes time of its own."""
    pending, seen = [("", model)], set()
    while pending:
        name, module = pending.pop()
        if module not in seen:
            seen.add(module)
            yield name, module
            if module._modules:
                within = f"{name}." if name else ""
                pending += [
                    (within + part, child) for part, child in reversed(module._modules.items()) if child is not None
                ]


def _names_of(module: nn.Module, of_class: frozenset[str]) -> dict[str, Any]:
    names = {name: value for name in of_class if (value := getattr(module, name, None)) is not None}
    if of_class is NAMES:
        return names
    attributes = module.__dict__
    for place in (attributes, attributes["_parameters"], attributes["_buffers"], attributes["_modules"]):
        if not NAMES.isdisjoint(place):
            names |= {name: place[name] for name in NAMES if place.get(name) is not None}
    return names


def _names_of_class(kind: type[nn.Module]) -> frozenset[str]:
    """Names that do not lie in its modules themselves, but in the class, or behind a ``__getattr__``, where any may."""
    if kind.__getattr__ is not nn.Module.__getattr__ or kind.__getattribute__ is not object.__getattribute__:
        return NAMES
    return frozenset().union(*(NAMES & vars(base).keys() for base in kind.__mro__))


def _count(values: dict[str, Any], names: tuple[str, ...]) -> int:
    tokens = [values[name] for name in names if isinstance(values.get(name), Tensor)]
    return sum(token.shape[-2] if token.dim() > 1 else 1 for token in tokens)


def surveyed(model: nn.Module | Survey) -> Survey:
    """Of a model, or what was read of it before."""
    return model if isinstance(model, Survey) else Survey(model)
