"""How the video model of the known places is made: ``python -m tools.video_model.train``."""
