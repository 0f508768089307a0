"""One pass through a model: its attention met on the way forward, and handed to a rule on the way back."""
