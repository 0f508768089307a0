"""What the reports have in common."""

from collections.abc import Iterable, Mapping, Sequence


def provenance(model: str, data: str, explained: str, command: str, versions: Mapping[str, str]) -> list[str]:
    """Lines that say how results came about."""
    return [
        f"- model: {model}",
        f"- data: {data}",
        f"- explained: {explained}",
        f"- made by `{command}`",
        f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, with columns of one width, that also reads well as it is; all but the first stand to the right."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    first, *others = lines
    return "\n".join(
        f"| {' | '.join(map(_padded, line, widths, range(len(line))))} |" for line in (first, rule, *others)
    )


def count(number: int, name: str = "image") -> str:
    """
    >>> count(1), count(2)
    ('1 image', '2 images')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def _padded(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)
