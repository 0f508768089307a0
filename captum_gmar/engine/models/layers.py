"""Where a model keeps its layers: in one list, or in several, one upon the other."""

import re
from collections.abc import Callable

from torch import Tensor, nn

from captum_gmar.engine.models.introspection import CLS_PARAMETERS, QUERY_PARAMETERS, Survey, named_modules, surveyed
from captum_gmar.engine.models.patch_grid import check_not_traced, is_patch_embedding

LISTS = (nn.ModuleList, nn.Sequential)
ATTENTION_NAMES = re.compile("attn|attention|qkv|query|q_proj|to_q", re.IGNORECASE)
# Parts that read what came out of several layers, so that none of these can be passed by; and lists of layers that are
# no part of what the image runs through before it is classified.
READERS = ("decode", "neck", "segmentation", "upernet")
BESIDE_THE_LAYERS = re.compile("text|pooler|predictor|head", re.IGNORECASE)


def transformer_layers(model: nn.Module | Survey, count: int | None = None) -> list[nn.Module]:
    """The layers of the vision tower, first to last: the modules between which the tokens' residual stream runs.

    They are the children of the one ``nn.ModuleList`` or ``nn.Sequential`` whose modules are of one class, each with
    attention in it. Of several, the one beside a patch embedding is meant, so CLIP's text tower is not.

    Args:
        model: a vision transformer, or a model that holds one.
        count: how many layers there are, for example as many as attention layers were met; without it, the longest
            such list counts.

    Raises:
        ValueError: if there is no such list, or more than one.
    """
    survey = surveyed(model)
    stacks = {
        name: layers
        for name, module in survey.named.items()
        if (layers := _layers_in(module, _has_attention)) and count in (None, len(layers))
    }
    embeddings = [name for name, module in survey.named.items() if is_patch_embedding(module)]
    beside = {name: max((_shared_depth(name, other) for other in embeddings), default=0) for name in stacks}
    ranks = {name: (beside[name], len(layers)) for name, layers in stacks.items()}
    best = [name for name in stacks if ranks[name] == max(ranks.values())]
    outer = [name for name in best if not any(_is_within(other, name) for other in best)]
    if len(outer) != 1:
        several = "" if count is None else f"{count} "
        raise ValueError(
            f"Expected one nn.ModuleList or nn.Sequential of {several}layers of one class, each with attention, in "
            f"{type(survey.model).__name__}, but found {', '.join(outer) or 'none'}. Methods that read the tokens "
            "between the layers need it; of a model with several towers, pass the one that sees the image."
        )
    return stacks[outer[0]]


def has_several_grids(model: nn.Module | Survey, inputs: Tensor) -> bool:
    """Whether the model's attention is not over one patch grid of images.

    Raises:
        RuntimeError: if the model is traced or exported.
    """
    survey = surveyed(model)
    check_not_traced(survey)
    if inputs.dim() != 4 or survey.tokens(QUERY_PARAMETERS) or has_stages(survey):
        return True
    try:
        layers = transformer_layers(survey)
    except ValueError:
        return any(True for _ in survey.model.children())  # one module alone holds no attention
    return any(map(_holds_lists, layers)) or _reads_layers(survey)


def has_stages(model: nn.Module | Survey) -> bool:
    """Whether there are several lists of layers, one upon the other."""
    return len(lists_of_layers(model)) > 1


def has_nested_stages(survey: Survey) -> bool:
    """Return whether several lists of layers are parts of one list, as those of stages are, and of towers not."""
    names = _names_of_lists(survey)
    containers = [name for name, module in survey.named.items() if isinstance(module, LISTS)]
    return len(names) > 1 and any(all(_is_within(name, container) for name in names) for container in containers)


def find_stages(model: nn.Module) -> list[list[nn.Module]]:
    """The layers of each stage, first to last; none where they cannot be passed by."""
    survey = Survey(model)
    stages = lists_of_layers(survey)
    if any(_holds_lists(layer) for stage in stages for layer in stage) or (len(stages) > 1 and _joins_late(survey)):
        return []
    return [] if _reads_layers(survey) else stages


def lists_of_layers(model: nn.Module | Survey) -> list[list[nn.Module]]:
    """The layers of each list that the image runs through, of lists within others the innermost."""
    survey = surveyed(model)
    return [list(survey.named[name].children()) for name in _names_of_lists(survey)]


def _names_of_lists(survey: Survey) -> list[str]:
    names = [
        name
        for name, module in survey.named.items()
        if _layers_in(module, _holds_attention) and not BESIDE_THE_LAYERS.search(name)
    ]
    return [name for name in names if not any(_is_within(other, name) for other in names)]


def _joins_late(survey: Survey) -> bool:
    """Of several stages: whether a class token, which the classifier reads, comes in the last; as in PVT and CvT.

    What comes out of earlier stages reaches it by later layers alone.
    """
    return bool(survey.tokens(CLS_PARAMETERS))


def _layers_in(module: nn.Module, is_layer: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The modules of a list, if they are of one class and all of them layers; else none."""
    if not isinstance(module, LISTS):  # most are none
        return []
    children = list(module.children())
    return children if len(set(map(type, children))) == 1 and all(map(is_layer, children)) else []


def _has_attention(layer: nn.Module) -> bool:
    """In it, or by itself."""
    return bool(ATTENTION_NAMES.search(type(layer).__name__)) or _holds_attention(layer)


def _holds_attention(module: nn.Module) -> bool:
    """As a part, so that it is more than that."""
    return any(
        ATTENTION_NAMES.search(name.rpartition(".")[2]) or ATTENTION_NAMES.search(type(part).__name__)
        for name, part in named_modules(module)
        if name
    )


def _holds_lists(layer: nn.Module) -> bool:
    return any(
        isinstance(part, LISTS) and any(map(_holds_attention, part.children())) for _, part in named_modules(layer)
    )


def _reads_layers(survey: Survey) -> bool:
    names = "\n".join(survey.named).lower()
    return any(reader in names for reader in READERS)


def _is_within(name: str, container: str) -> bool:
    return name != container and name.startswith(f"{container}." if container else "")


def _shared_depth(name: str, other: str) -> int:
    """How many of the modules that hold one of the two hold both."""
    depth = 0
    for part, other_part in zip(name.split("."), other.split("."), strict=False):
        if part != other_part:
            break
        depth += 1
    return depth
