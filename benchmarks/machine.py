"""Where it was measured, and with which versions."""

import ctypes
import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import captum_gmar
from benchmarks.peers import PEERS

PACKAGES = ("torch", "transformers", "captum")
GIB = 2**30

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def describe(device: str, threads: int) -> dict[str, str]:
    """Describe the machine in words."""
    machine = {
        "processor": f"{_processor()}, {os.cpu_count()} logical cores, {platform.machine()}",
        "threads used": str(threads),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.0f} GiB",
        "system": platform.system(),
        "measured on": device,
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        machine["GPU"] = f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
        for precision in (torch.float32, torch.bfloat16):
            machine[f"attention in {precision}".replace("torch.", "")] = _attention(device, precision)
    return machine


def keep_freed_memory() -> None:
    """Lets this process keep what it frees, where its C library is glibc.

    To be given memory anew takes time, page by page, and how much of it depends on what else ran before.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, -1)
        library.mallopt(M_MMAP_MAX, 0)


def versions() -> dict[str, str]:
    """Return the versions of Python, this package, what it stands on, and the peers that are installed."""
    found = {"Python": platform.python_version(), "captum_gmar": captum_gmar.__version__}
    for package in dict.fromkeys((*PACKAGES, *(package for package, _, _ in PEERS.values()))):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "processor of unknown name"


def _attention(device: str, precision: torch.dtype) -> str:
    """Return the first of torch's kernels that takes heads of 64 channels; the model's own pass uses it."""
    query = torch.zeros(1, 1, 256, 64, dtype=precision, device=device)
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            with sdpa_kernel(kernel):
                F.scaled_dot_product_attention(query, query, query)
        except RuntimeError:
            continue
        return kernel.name.lower().replace("_", " ")
    return "written out"
