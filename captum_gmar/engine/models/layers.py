"""Search for a model's layers, in one list or in several stages."""

import re
from collections.abc import Callable
from itertools import takewhile

from torch import Tensor, nn

from captum_gmar.engine.models.introspection import (
    CLS_PARAMETERS,
    QUERY_PARAMETERS,
    ModelInfo,
    inspect_model,
    named_modules,
)
from captum_gmar.engine.models.patch_grid import check_not_traced, is_patch_embedding

LISTS = (nn.ModuleList, nn.Sequential)
ATTENTION_NAMES = re.compile("attn|attention|qkv|query|q_proj|to_q", re.IGNORECASE)
# Modules of these names read several layers, so no layer can be skipped.
READERS = ("decode", "neck", "segmentation", "upernet", "mask_head")
# Lists of these names are not part of the image's path to the classifier.
OTHER_LISTS = re.compile("text|pooler|predictor|head", re.IGNORECASE)


def transformer_layers(model: nn.Module | ModelInfo) -> list[nn.Module]:
    """Return the vision tower's layers, first to last, of the longest list.

    Layers are the children of one ``nn.ModuleList`` or ``nn.Sequential``, have one class and contain attention. Of
    several lists, the one nearest to a patch embedding is chosen, which excludes CLIP's text tower. None, or more than
    one, raises ValueError.
    """
    info = inspect_model(model)
    stacks = {name: layers for name, module in info.named.items() if (layers := _layers_in(module, _has_attention))}
    embeddings = [name for name, module in info.named.items() if is_patch_embedding(module)]
    depths = {name: max((_shared_depth(name, other) for other in embeddings), default=0) for name in stacks}
    ranks = {name: (depths[name], len(layers)) for name, layers in stacks.items()}
    best = [name for name in stacks if ranks[name] == max(ranks.values())]
    outer = [name for name in best if not any(_is_within(other, name) for other in best)]
    if len(outer) != 1:
        raise ValueError(
            f"{type(info.model).__name__} must have one nn.ModuleList or nn.Sequential of layers of one class, each "
            f"with attention, but has {', '.join(outer) or 'none'}. Pass the tower that sees the image, or use a "
            "method that reads no tokens between layers."
        )
    return stacks[outer[0]]


def has_several_grids(model: nn.Module | ModelInfo, inputs: Tensor) -> bool:
    """Return whether the model has no single patch grid of images."""
    info = inspect_model(model)
    check_not_traced(info)
    if inputs.dim() != 4 or info.tokens(QUERY_PARAMETERS) or has_stages(info):
        return True
    try:
        layers = transformer_layers(info)
    except ValueError:
        return any(True for _ in info.model.children())  # a model without children has no attention
    return any(map(_holds_lists, layers)) or _reads_layers(info)


def has_stages(model: nn.Module | ModelInfo) -> bool:
    """Return whether the model has several lists of layers."""
    return len(layer_lists(model)) > 1


def has_nested_stages(info: ModelInfo) -> bool:
    """Return whether one list contains several lists of layers, as in stages but not in towers."""
    names = _names_of_lists(info)
    containers = [name for name, module in info.named.items() if isinstance(module, LISTS)]
    return len(names) > 1 and any(all(_is_within(name, container) for name in names) for container in containers)


def find_stages(model: nn.Module) -> list[list[nn.Module]]:
    """Return the layers of each stage, or nothing if layers cannot be skipped."""
    info = ModelInfo(model)
    stages = layer_lists(info)
    # In PVT and CvT a class token joins in the last stage, which earlier stages reach only through later layers.
    joins_late = len(stages) > 1 and info.tokens(CLS_PARAMETERS)
    if joins_late or _reads_layers(info) or any(_holds_lists(layer) for stage in stages for layer in stage):
        return []
    return stages


def layer_lists(model: nn.Module | ModelInfo) -> list[list[nn.Module]]:
    """Return the layers of each innermost list on the image's path."""
    info = inspect_model(model)
    return [list(info.named[name].children()) for name in _names_of_lists(info)]


def _names_of_lists(info: ModelInfo) -> list[str]:
    names = [
        name
        for name, module in info.named.items()
        if _layers_in(module, _holds_attention) and not OTHER_LISTS.search(name)
    ]
    innermost = [name for name in names if not any(_is_within(other, name) for other in names)]
    # open_clip names its vision tower so, and the text tower's list by no word of text.
    return [name for name in innermost if "visual" in name.split(".")] or innermost


def _layers_in(module: nn.Module, is_layer: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """Return the modules of a list if they have one class and all are layers, else nothing."""
    if not isinstance(module, LISTS):  # saves time for most modules
        return []
    children = list(module.children())
    return children if len(set(map(type, children))) == 1 and all(map(is_layer, children)) else []


def _has_attention(layer: nn.Module) -> bool:
    return bool(ATTENTION_NAMES.search(type(layer).__name__)) or _holds_attention(layer)


def _holds_attention(module: nn.Module) -> bool:
    """Return whether a proper part of the module is attention."""
    return any(
        ATTENTION_NAMES.search(name.rpartition(".")[2]) or ATTENTION_NAMES.search(type(part).__name__)
        for name, part in named_modules(module)
        if name
    )


def _holds_lists(layer: nn.Module) -> bool:
    return any(
        isinstance(part, LISTS) and any(map(_holds_attention, part.children())) for _, part in named_modules(layer)
    )


def _reads_layers(info: ModelInfo) -> bool:
    names = "\n".join(info.named).lower()
    return any(reader in names for reader in READERS)


def _is_within(name: str, container: str) -> bool:
    return name != container and name.startswith(f"{container}." if container else "")


def _shared_depth(name: str, other: str) -> int:
    """Return the number of modules that contain both modules."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
