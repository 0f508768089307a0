"""One pass through a model, explained.

Each folder imports only those below it:

- ``explain``: chooses the pass for a model, by its structure, then loads and runs it.
- ``attention``: attention maps, propagated layer by layer. ``hidden_states``: hidden states times LibraGrad's gradient.
  ``values``: values on any grid, times their gradient; attention in windows.
- ``plan``, ``rule``, ``request``: the method's plan, its rule, and the user's inputs and targets, in smaller batches
  when memory runs out. ``checks``, ``finite_checks``: what a model and its numbers must be.
- ``kernels``: attention without T×T matrices. ``hooks``: interception of torch's functions. ``models``: patch grid,
  layers and readout tokens of a model.

Methods are in :mod:`captum_gmar.attr`.
"""

import re

import torch

OLDEST_TORCH = (2, 6)

# By its first two numbers: prereleases, and builds of a company's own, have what their release has.
if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < OLDEST_TORCH:
    raise ImportError(
        f"captum_gmar needs torch {'.'.join(map(str, OLDEST_TORCH))} or newer. Got {torch.__version__} instead. "
        "Update it, with pip install --upgrade torch."
    )
