"""Evidence for the words that a vision-language model generates."""
