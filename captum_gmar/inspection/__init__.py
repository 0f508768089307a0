"""One image looked at closely: methods side by side, texts, and pages of answers and classes."""
