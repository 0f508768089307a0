"""The report: tables for people, the same numbers as JSON, and the plots."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.exactness import Agreement
from benchmarks.measuring import EVERYTHING, START_UP, Found, Measurements
from benchmarks.plots import draw_growth, save
from benchmarks.presets import GROWING, Preset
from benchmarks.summary import Growth, Line, Spread, grown, lines
from captum_gmar.files.markdown import table
from captum_gmar.files.writing import write_json, write_text
from captum_gmar.visualization._style import number_text

PLOT = "growth.png"
ABOUT = """\
A ratio is the time or memory of a row over that of the model's own pass that it is compared with: a plain forward pass,
forward and backward to the input, or one forward and five backward passes. The model's own passes use torch's fused
attention and keep nothing for gradients of weights. Time: row, own pass, row, own pass … in one process; a ratio is of
two neighbours, and what is given is the median of the rounds and, in brackets, the quartiles. "Again" is the own pass
compared with itself: how far the ratios can be trusted. Memory: the peak of a new process, after one small pass, over
what it held before the pass. Models have random weights, on which the cost does not depend.

Captum's methods that run many images run 16 of them at once on a processor and 128 elsewhere, fewer above 224²;
integrated gradients has 50 steps; occlusion and feature ablation take out patch by patch. "Every A and G kept" is
`record_attention`: eager attention with `output_attentions=True` and all gradients of it."""


def write_report(
    folder: Path,
    measurements: Measurements,
    preset: Preset,
    command: str,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
) -> None:
    """Write ``report.md``, ``report.json`` and the plot."""
    found = {case: measurements.get(str(case), Found()) for case in (*preset.rows, *preset.exact, START_UP)}
    tables = {str(case): lines(found[case], names) for case, names in preset.tables.items() if found[case].samples}
    growth = {what: grown(measurements, what, cases, GROWING) for what, cases in preset.growth.items()}
    growth = {what: rows for what, rows in growth.items() if rows}
    exact = {str(case): found[case].agreements for case in preset.exact if found[case].agreements}
    parts = [_head(command, machine, versions), ABOUT, "## Ratios", overview(tables)]
    parts += [f"## {case}\n\n{to_markdown(own)}" for case, own in tables.items()]
    if growth:
        save(draw_growth(growth), folder / PLOT)
        parts += ["## Growth", f"![growth]({PLOT})", *(_growth(what, own) for what, own in growth.items())]
    if found[START_UP].samples:
        parts += ["## Start-up", _start_up(found[START_UP])]
    parts += [f"## Exactness: {case}\n\n{_agreements(own)}" for case, own in exact.items()]
    broken = {case: one.reasons[EVERYTHING] for case, one in found.items() if EVERYTHING in one.reasons}
    parts += [f"{case}: not measured: {reason}" for case, reason in broken.items()]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
    numbers = {
        **{"command": command, "machine": machine, "versions": versions, "cases": tables, "growth": growth},
        **{"start_up": found[START_UP].samples, "exactness": exact},
    }
    write_json(folder / "report.json", _plain(numbers))


def _plain(value: Any) -> Any:
    """Return named tuples as dictionaries, wherever they are."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def overview(tables: Mapping[str, Sequence[Line]]) -> str:
    """Time and memory ratios of every row and case."""
    compared = {line.row: line.own for own in tables.values() for line in own if line.own}
    cells = {case: {line.row: _ratios(line) for line in own} for case, own in tables.items()}
    rows = ([row, own, *(cells[case].get(row, "") for case in tables)] for row, own in compared.items())
    return table(["time; memory", "compared with", *tables], rows)


def to_markdown(rows: Sequence[Line]) -> str:
    """Return the table of a case; a row that was not measured says why."""
    header = ["row", "compared with", "time ratio", "memory ratio", "seconds", "peak MiB", "rounds"]
    return table(header, [_cells(line) for line in rows])


def _cells(line: Line) -> list[str]:
    name = f"*{line.row}*" if line.is_own else line.row
    if line.seconds is None:
        return [name, line.own or "", f"not measured: {line.reason or 'out of time'}", *[""] * 4]
    ratio = str_spread(line.ratio) if line.ratio else ""
    memory = _number(line.memory_ratio, ".2f") or (f"{line.reason}" if line.reason else "")
    seconds, mib = _number(line.seconds, ".3g"), _number(line.mib, ".0f" if (line.mib or 0) >= 10 else ".1f")
    return [name, line.own or "", ratio, memory, seconds, mib, str(line.rounds)]


def _ratios(line: Line) -> str:
    both = (line.ratio and line.ratio.median, line.memory_ratio)
    return "; ".join(f"{ratio:.{_digits(ratio)}f} ×" for ratio in both if ratio is not None)


def str_spread(own: Spread) -> str:
    """Format a ratio with its spread, ``1.05 × [1.03, 1.08]``; large ones get fewer digits."""
    digits = _digits(own.median)
    return f"{own.median:.{digits}f} × [{own.low:.{digits}f}, {own.high:.{digits}f}]"


def _digits(ratio: float) -> int:
    return 2 if ratio < 10 else 0


def _number(number: float | None, digits: str) -> str:
    return "" if number is None else format(number, digits)


def _head(command: str, machine: Mapping[str, str], versions: Mapping[str, str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    described = [f"- {name}: {value}" for name, value in machine.items()]
    return "\n".join(["# What it costs", "", *described, f"- versions: {packages}", f"- made by `{command}`"])


def _growth(what: str, rows: Sequence[Growth]) -> str:
    header = ["row", "time", "memory", "memory above the own pass", f"… in MiB ({what})"]
    cells = table(header, [_growth_cells(row) for row in rows])
    return f"Exponents of growth with {what}, and the memory above the model's own pass at each size:\n\n{cells}"


def _growth_cells(row: Growth) -> list[str]:
    exponents = [_number(exponent, ".2f") for exponent in (row.time, row.memory, row.excess)]
    if row.lines[0].is_own:
        return [f"*{row.row}*", *exponents[:2], "", ""]
    each = (f"{number_text(mib, '.0f')} ({size})" for mib, size in zip(row.excess_mib, row.sizes, strict=True))
    return [row.row, *exponents, ", ".join(each)]


def _start_up(found: Found) -> str:
    rows = (
        [
            f"`{name}`",
            f"{statistics.median(sample.seconds for sample in taken):.2f}",
            taken[0].own,
            f"{statistics.median(sample.seconds - sample.own_seconds for sample in taken):.2f}",
        ]
        for name, taken in found.samples.items()
    )
    return table(["command", "seconds", "compared with", "seconds more"], rows)


def _agreements(own: Sequence[Agreement]) -> str:
    header = ["method", "relative error, float32", "rank correlation, bfloat16"]
    return table(header, ([one.method, _number(one.error, ".1e"), _number(one.correlation, ".5f")] for one in own))
