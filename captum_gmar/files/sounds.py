"""Reading sounds."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from captum_gmar.files.names import readable

SAMPLES = {1: np.uint8, 2: np.int16, 4: np.int32}  # by their bytes


def read_sound(path: str | Path, rate: int) -> npt.NDArray[np.float32]:
    """
    Reads a WAV file of whole numbers, its channels as their mean.

    Args:
        path (str or Path): The file.
        rate (int): Samples a second that the model takes.

    Returns:
        numpy.ndarray (samples,) in [-1, 1].

    Raises:
        OSError: if there is no such file, or it cannot be read; the message names it.
        ValueError: if it holds another number of samples a second.
    """
    name = readable(Path(path))
    try:
        with wave.open(str(path), "rb") as sound:
            channels, width, given, count = sound.getparams()[:4]
            data = sound.readframes(count)
    except FileNotFoundError as error:
        raise OSError(f"{name}: no such file") from error
    except (wave.Error, EOFError) as error:
        raise OSError(f"{name}: cannot be read as a WAV file: {error or 'it ends too early'}") from error
    if width not in SAMPLES:
        raise OSError(f"{name}: samples of {8 * width} bits cannot be read, only of 8, 16 or 32")
    if given != rate:
        raise ValueError(f"a sound must hold the {rate} samples a second that the model takes. Got {given} instead.")
    samples = np.frombuffer(data, SAMPLES[width]).astype(np.float32).reshape(-1, channels).mean(1)
    full = float(2 ** (8 * width - 1))
    unit: npt.NDArray[np.float32] = ((samples - (full if width == 1 else 0)) / full).astype(np.float32)
    return unit
