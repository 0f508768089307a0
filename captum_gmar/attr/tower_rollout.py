"""From image tokens down to patches: relevance handed down through a vision tower by attention rollout."""

from typing import Any

import torch
from torch import Tensor

from captum_gmar.attr.rules import RolloutSweep
from captum_gmar.engine.explanation import Plan, run_forward
from captum_gmar.engine.fields import stretched
from captum_gmar.engine.layer_parts import Layer
from captum_gmar.engine.mixing import written_out
from captum_gmar.engine.models import Logits
from captum_gmar.engine.precision import wide


@torch.no_grad()
def handed_down(model: Any, pixel_values: Tensor, maps: Tensor) -> Tensor:
    r"""Maps of image tokens, handed down through the vision tower's layers to its patches.

    .. math:: r \leftarrow \tfrac{1}{2} (r \bar A_l + r)

    from the last layer that the image tokens are made of to the first, :math:`\bar A_l` being the mean of the heads
    (Abnar and Zuidema, ACL 2020). It is linear, so the sign is kept; what prefix tokens get is left out. Where an image
    token was made of several patches, its relevance begins at all of them in equal parts.

    Args:
        model: of transformers, with ``get_image_features``.
        pixel_values: (1, channels, height, width) of one picture.
        maps: (W, rows, columns) of its image tokens.

    Returns:
        (W, rows', columns') of the tower's patches.

    Raises:
        ValueError: if the pixel values are not those of one picture in one piece.
        RuntimeError: if the tower's attention is not over one patch grid.
    """
    if pixel_values.dim() != 4 or len(pixel_values) != 1:
        raise ValueError(
            "pixel_values must be of one picture in one piece, (1, channels, height, width). Got "
            f"{tuple(pixel_values.shape)} instead: maps of tiles are those of their image tokens."
        )
    forward_func = Logits(model.get_image_features)
    with torch.enable_grad(), run_forward(model, forward_func, Plan(sweep=RolloutSweep()), pixel_values, None) as met:
        forward_pass, _ = met
        forward_pass.check_met(model)
        layers, grid = _read_layers(model, forward_pass.layers), forward_pass.grid
        rows = wide(maps.new_zeros(len(maps), forward_pass.tokens))
    rows[:, -grid.patches :] = stretched(maps, grid.shape).flatten(1)
    for query, key, mask, scale, _ in reversed(layers):
        attention = wide(written_out(query, key, mask, scale=scale)).mean(1)[0]
        rows = torch.lerp(rows, rows @ attention, 0.5)
    return rows[:, -grid.patches :].view(-1, *grid.shape)


def _read_layers(model: Any, layers: list[Layer]) -> list[Layer]:
    """Those that image tokens are made of: of a model that takes the states below the last layers, not these."""
    chosen = getattr(model.config, "vision_feature_layer", -1)
    numbers = [chosen] if isinstance(chosen, int) else list(chosen or [-1])
    return layers[: max(number if number >= 0 else len(layers) + 1 + number for number in numbers)]
