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
        modules: each with those of NAMES that it has and that are not None.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._is_plain: dict[type, bool] = {}
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
        kind = type(module)
        if kind not in self._is_plain:
            self._is_plain[kind] = _is_plain(kind)
        if not self._is_plain[kind]:
            values = {name: getattr(module, name, None) for name in NAMES}
            return {name: value for name, value in values.items() if value is not None}
        places = (vars(module), module._parameters, module._buffers, module._modules)
        if all(not place or place.keys().isdisjoint(NAMES) for place in places):
            return {}
        return {name: place[name] for place in places for name in NAMES if place.get(name) is not None}


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """As ``model.modules()`` has them, of which each level of nesting takes time of its own."""
    pending, seen = [model], set()
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            yield module
            pending.extend(child for child in reversed(module._modules.values()) if child is not None)


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether what its modules have lies in themselves alone, none of it in the class or behind a ``__getattr__``."""
    special = kind.__getattr__ is not nn.Module.__getattr__ or kind.__getattribute__ is not object.__getattribute__
    return not special and all(NAMES.isdisjoint(vars(base)) for base in kind.__mro__)


def _count(values: dict[str, Any], names: tuple[str, ...]) -> int:
    tokens = [values[name] for name in names if isinstance(values.get(name), Tensor)]
    return sum(token.shape[-2] if token.dim() > 1 else 1 for token in tokens)


def surveyed(model: nn.Module | Survey) -> Survey:
    """Of a model, or what was read of it before."""
    return model if isinstance(model, Survey) else Survey(model)
