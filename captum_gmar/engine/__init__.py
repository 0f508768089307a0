"""One pass through a model, explained.

Each folder imports only those below it:

- ``explain`` chooses the pass for a model, by its structure, then loads and runs it.
- ``attention`` propagates attention maps, ``hidden_states`` takes LibraGrad's gradient, ``values`` any grid.
- ``plan``, ``rule``, ``request``: the method and the user's inputs. ``checks``, ``finite_checks``: of both.
- ``kernels``: attention without T×T matrices. ``hooks``: interception of torch. ``models``: patch grid, layers, tokens.
"""

import re

import torch

OLDEST_TORCH = (2, 6)

# By its first two numbers: prereleases, and builds of a company's own, have what their release has.
if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < OLDEST_TORCH:
    raise ImportError(
        f"captum_gmar needs torch {'.'.join(map(str, OLDEST_TORCH))} or newer, but got {torch.__version__}. "
        "Update it, with pip install --upgrade torch."
    )
