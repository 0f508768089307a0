"""How the built-in model was made: ``python -m tools.demo_model.train`` trains one like it.

``python -m tools.demo_model.card FOLDER`` measures the model in a folder and writes its card.
"""
