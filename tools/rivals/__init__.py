"""The one-pass methods side by side, on the halves that no choice was made on: see ``docs/protocol.md``."""
