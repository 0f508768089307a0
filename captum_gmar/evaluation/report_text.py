"""What the reports have in common."""

from collections.abc import Mapping


def provenance(model: str, data: str, explained: str, command: str, versions: Mapping[str, str]) -> list[str]:
    """Lines that say how results came about."""
    return [
        f"- model: {model}",
        f"- data: {data}",
        f"- explained: {explained}",
        f"- made by `{command}`",
        f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]


def count(number: int, name: str = "image") -> str:
    """
    >>> count(1), count(2)
    ('1 image', '2 images')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"
