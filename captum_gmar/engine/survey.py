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
_KEPT = ("_parameters", "_buffers", "_modules")  # where a module keeps what is none of its attributes
NAMES = frozenset((*PREFIX_PARAMETERS, *QUERY_PARAMETERS, *SWITCHES, *POOLING, FUSED, "config"))


class Survey:
    """Of a model, as it is now.

    Attributes:
        model: which it is of.
        modules: each with those of NAMES that it has and that are not None.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._of_class: dict[type, frozenset[str]] = {}
        self.modules = [(module, self._names_of(module)) for module in _modules(model)]

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

    def _names_of(self, module: nn.Module) -> dict[str, Any]:
        kind, attributes = type(module), module.__dict__
        if kind not in self._of_class:
            self._of_class[kind] = _names_of_class(kind)
        of_class = self._of_class[kind]
        names = {name: value for name in of_class if (value := getattr(module, name, None)) is not None}
        if of_class is NAMES:
            return names
        if not attributes.keys().isdisjoint(NAMES):
            names |= {name: attributes[name] for name in NAMES & attributes.keys() if attributes[name] is not None}
        for kept in _KEPT:
            place = attributes[kept]
            if place and not place.keys().isdisjoint(NAMES):
                names |= {name: place[name] for name in NAMES if place.get(name) is not None}
        return names


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """As ``model.modules()`` has them, of which each level of nesting takes time of its own."""
    pending, seen = [model], set()
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            yield module
            if module._modules:
                pending += [child for child in reversed(module._modules.values()) if child is not None]


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
