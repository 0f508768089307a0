"""Model introspection: attributes of all modules, read at once.

A pass needs some twenty attributes that most modules lack, and ``getattr`` is slowest for missing ones. Nothing is
cached between calls, as a model may change.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

# Names of prefix tokens in transformers, timm and torchvision.
CLS_PARAMETERS = ("cls_token", "class_token", "class_embedding")
DISTILLATION_PARAMETERS = ("dist_token", "distillation_token")
REGISTER_PARAMETERS = ("reg_token", "register_tokens")
PREFIX_PARAMETERS = CLS_PARAMETERS + DISTILLATION_PARAMETERS + REGISTER_PARAMETERS
QUERY_PARAMETERS = ("detection_tokens", "det_token")  # tokens after the patches
SWITCHES = ("grad_checkpointing", "gradient_checkpointing", "drop_prob")
POOLING = ("global_pool", "pool_include_prefix", "head_dist")
# Values of attributes during a pass.
PASS_VALUES = {
    "fused_attn": True,  # timm's attention calls torch's function
    "support_avx512bf16_for_cpu": False,  # bitsandbytes does not pack 4-bit weights into a form without gradient
}
NAMES = frozenset((*PREFIX_PARAMETERS, *QUERY_PARAMETERS, *SWITCHES, *POOLING, *PASS_VALUES, "config"))


class ModelInfo:
    """Attributes of a model's modules."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named = dict(named_modules(model))  # by name, as in ``model.named_modules()``
        self.modules: list[tuple[nn.Module, dict[str, Any]]] = []  # the first of each class and all with any of NAMES
        class_names: dict[type, frozenset[str]] = {}
        for module in self.named.values():
            kind = type(module)
            is_first = kind not in class_names
            if is_first:
                class_names[kind] = _names_of_class(kind)
            values = _attributes(module, class_names[kind])
            if values or is_first:
                self.modules.append((module, values))

    def each(self, *names: str) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
        """Yield the modules that have one of these attributes, with all their attributes."""
        wanted = set(names)
        return ((module, values) for module, values in self.modules if not wanted.isdisjoint(values))

    def values(self, name: str) -> Iterator[Any]:
        """Yield an attribute of all modules that have it."""
        return (values[name] for _, values in self.modules if name in values)

    def tokens(self, names: tuple[str, ...]) -> list[int]:
        """Return the number of tokens in these parameters, for each module that has any."""
        return [number for _, values in self.each(*names) if (number := _count(values, names))]


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules as ``model.named_modules()``, whose time grows with the depth of nesting."""
    pending, visited = [("", model)], set()
    while pending:
        name, module = pending.pop()
        if module not in visited:
            visited.add(module)
            yield name, module
            if module._modules:
                prefix = f"{name}." if name else ""
                children = reversed(module._modules.items())
                pending += [(prefix + part, child) for part, child in children if child is not None]


def _attributes(module: nn.Module, class_names: frozenset[str]) -> dict[str, Any]:
    values = {name: value for name in class_names if (value := getattr(module, name, None)) is not None}
    if class_names is NAMES:
        return values
    attributes = module.__dict__
    for part in (attributes, attributes["_parameters"], attributes["_buffers"], attributes["_modules"]):
        if not NAMES.isdisjoint(part):
            values |= {name: part[name] for name in NAMES if part.get(name) is not None}
    return values


def _names_of_class(kind: type[nn.Module]) -> frozenset[str]:
    """Return the names that instances may get from their class; a ``__getattr__`` may return any name."""
    if kind.__getattr__ is not nn.Module.__getattr__ or kind.__getattribute__ is not object.__getattribute__:
        return NAMES
    return frozenset().union(*(NAMES & vars(base).keys() for base in kind.__mro__))


def _count(values: dict[str, Any], names: tuple[str, ...]) -> int:
    tokens = [values[name] for name in names if isinstance(values.get(name), Tensor)]
    return sum(token.shape[-2] if token.dim() > 1 else 1 for token in tokens)


def inspect_model(model: nn.Module | ModelInfo) -> ModelInfo:
    """Return the attributes of a model, which may have been read already."""
    return model if isinstance(model, ModelInfo) else ModelInfo(model)


def check_loaded(info: ModelInfo, inputs: Tensor) -> None:
    """Raise a RuntimeError for a layer whose weights are missing, or silently pass no gradient."""
    for name, module in info.named.items():
        if getattr(type(module), "SUPPORTS_TRAINING", True) is False:  # GPTQModel's attribute of GPTQ and AWQ kernels
            raise _quantised_error(name, module, "its kernel has none")
        parameters = vars(module).get("_parameters")
        weight = parameters.get("weight") if isinstance(parameters, dict) else None  # traced modules have others
        if weight is None:
            continue
        if weight.is_meta and not inputs.is_meta and not _is_hooked(info):
            raise RuntimeError(
                f"{type(info.model).__name__} must have all of its weights, but those of {name!r} are on the meta "
                "device. Load the whole model, or let accelerate offload it (docs/how-to/loading.md)."
            )
        if getattr(weight, "act_quant_kwargs", None) is not None:
            raise _quantised_error(name, module, "torchao has no gradient of its quantised activations")
        if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
            reason = "bitsandbytes packed its weights for this CPU in an earlier call, and has no gradient of them"
            raise _quantised_error(name, module, reason)


def _is_hooked(info: ModelInfo) -> bool:
    """Return if hooks may load the weights when their module runs, as accelerate's do."""
    return any(module._forward_pre_hooks or hasattr(module, "_hf_hook") for module in info.named.values())


def _quantised_error(name: str, module: nn.Module, reason: str) -> RuntimeError:
    return RuntimeError(
        f"{type(module).__name__} {name!r} must pass a gradient, but {reason}. Load the model anew, with quantised "
        "weights alone or none. docs/how-to/loading.md lists what works."
    )
