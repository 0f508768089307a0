"""One pass through a model: its attention met on the way forward, and handed to a rule on the way back.

``explain`` runs it: ``forward`` meets attention (by ``interception``, computed by ``blockwise``), ``backward`` takes
relevance down the layers, ``truncation`` cuts them apart where each is explained by itself, and ``balanced`` makes the
gradient complete. ``rule`` says what a rule is and ``reading`` what it reads of a layer, for which there are several
``ways``; ``models``, ``start_tokens`` and ``graph`` what is known of a model, ``request`` what a user asks,
``switching`` what is switched meanwhile. ``recording`` is the dense way. Methods are in :mod:`captum_gmar.attr`.
"""
