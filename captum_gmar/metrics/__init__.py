"""Faithfulness, localisation and sanity metrics of attributions.

Every metric is a function of a callable and tensors. Inputs are images (N, C, H, W); curves also take videos
(N, frames, C, H, W). Attributions have the inputs' shape, targets take Captum's forms, and results hold one value per
example on the inputs' device.

- Faithfulness: :func:`deletion`, :func:`insertion`, :func:`symmetric_relevance_gain`, :func:`prediction_changes`,
  :func:`area_over_curve`, and :func:`masked_probability` for average drop, increase and gain. Curves take a removal:
  :class:`Zero`, :class:`Mean`, :class:`Blur`, :class:`Noise`, :class:`NoisyLinear`, or
  :class:`~captum_gmar.ablation.TokenRemoval`, which drops tokens instead of filling pixels.
- Localisation with masks or boxes: :func:`pointing_game`, :func:`relevance_mass_accuracy`,
  :func:`relevance_rank_accuracy`, :func:`boxes_to_masks`. Sums over things in a photo:
  :func:`relevance_by_segment`. Localisation on mosaics of four images: :func:`mosaic`, :func:`grid_pointing_game`.
- Sanity: :func:`completeness_error`, :func:`class_sensitivity`, :func:`parameter_randomisation`, and
  :func:`control_maps`, the baselines that every method must beat.

Captum's infidelity and sensitivity accept our methods unchanged: ``docs/how-to/captum-tools.md``. Infidelity compares
attributions with a change of the logit, so relevance that sums to 1 needs ``normalize=True``.
"""

# ruff: noqa: F403 (each module lists its public names in `__all__`)
from captum_gmar.metrics.average_drop import *
from captum_gmar.metrics.completeness import *
from captum_gmar.metrics.controls import *
from captum_gmar.metrics.curves import *
from captum_gmar.metrics.grid_pointing import *
from captum_gmar.metrics.insertion_deletion import *
from captum_gmar.metrics.localisation import *
from captum_gmar.metrics.relevance_gain import *
from captum_gmar.metrics.removal import *
from captum_gmar.metrics.road import *
from captum_gmar.metrics.sanity import *
from captum_gmar.metrics.segments import *
