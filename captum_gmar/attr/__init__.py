"""The attribution methods: our own, and Captum's made ready for vision transformers.

``rules`` and ``token_rules`` have their formulas, ``_base`` what Captum expects around them, and ``catalogue`` a row
for each, which loads nothing before it is asked to. ``patch_relevance`` gives what any of them says of each patch,
``explainer`` what several say of a batch, with the model's logits.
"""
