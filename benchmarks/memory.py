"""How much memory a pass takes at its peak, over what its process held before."""

import ctypes
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.cases import Case
from benchmarks.isolated import failure
from benchmarks.rows import OWN, Subject

PROCESS = Path("/proc/self")
TINY = Case("ViT-Ti", 64, layers=1)  # brings in what the first pass of a process brings in


def take_peaks(case: Case, device: str, threads: int, names: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the peaks in MiB of rows or own passes, and the reasons of those that have none.

    On a processor, a process can tell the peak of one alone.
    """
    torch.set_num_threads(threads)
    peaks, reasons = {}, {}
    for name in names:
        try:
            with suppress(Exception):
                _run(Subject(TINY._replace(precision=case.precision), device), name)()
            peaks[name] = _peak(_run(Subject(case, device), name), device)
        except Exception as error:
            reasons[name] = failure(error)
    return peaks, reasons


def _run(subject: Subject, name: str) -> Callable[[], object]:
    return subject.own(name) if name in OWN else subject.row(name).run


def _peak(run: Callable[[], object], device: str) -> float:
    """MiB"""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device != "cpu" or not (PROCESS / "clear_refs").exists():
        raise NotImplementedError("memory is measured on Linux and on CUDA devices only")
    with suppress(AttributeError):  # of C libraries other than GNU's
        ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed: a pass that takes it again is seen to
    (PROCESS / "clear_refs").write_text("5")  # forgets the peak so far
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    """KiB, from Linux."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
