"""The attribution methods: our own, and Captum's made ready for vision transformers."""
