"""What is installed."""

from importlib.metadata import PackageNotFoundError, version

import transformers

HAS_TRANSFORMERS_5 = int(transformers.__version__.partition(".")[0]) >= 5


def has_triton(major, minor):
    """Whether Triton is there, of this version at least."""
    try:
        return tuple(map(int, version("triton").split(".")[:2])) >= (major, minor)
    except PackageNotFoundError:
        return False
