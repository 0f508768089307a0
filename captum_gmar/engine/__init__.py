"""One pass through a model: its attention met on the way forward, and handed to a rule on the way back.

``explain`` runs it: ``forward`` meets attention (by ``interception``, computed by ``blockwise``), ``backward`` takes
relevance down the layers, ``truncation`` cuts them apart where each is explained by itself, and ``balanced`` makes the
gradient complete. ``rule`` says what a rule is and ``reading`` what it reads of a layer, for which there are several
``ways``; small layers are read ``together``. ``models``, ``layer_lists``, ``start_tokens`` and ``graph`` say what is
known of a model, ``request`` what a user asks, ``switching`` what is switched meanwhile. ``recording`` is the dense
way. Methods are in :mod:`captum_gmar.attr`.
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
