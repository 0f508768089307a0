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
