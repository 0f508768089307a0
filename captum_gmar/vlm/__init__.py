"""Words of an answer that a model generates, and the parts of its pictures, prompt and sound that fed each."""
