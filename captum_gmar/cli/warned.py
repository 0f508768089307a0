"""The former name of what :func:`captum_gmar.cli.main.main` does for all commands."""

from captum_gmar.cli.terminal import reported_warnings as own_warning

__all__ = ["own_warning"]
