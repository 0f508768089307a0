"""How the built-in model that answers was made: ``python -m tools.answering_model.train`` trains one like it."""
