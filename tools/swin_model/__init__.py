"""How the windowed model of the known places is made: ``python -m tools.swin_model.train``."""
