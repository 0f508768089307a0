"""Properties of a model: its patch grid, layers, readout tokens and attention backend."""
