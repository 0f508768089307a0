"""One image looked at closely: methods side by side, texts, pages of answers, and the explorer for notebooks."""
