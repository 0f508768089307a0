"""Reading sounds."""

import struct
from collections.abc import Iterator
from math import ceil, gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captum_gmar.files.names import check_file, readable_name

INTEGERS, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE  # formats of samples in the header of a WAV file
SAMPLE_TYPES = {
    INTEGERS: {1: "u1", 2: "<i2", 3: "u1", 4: "<i4"},
    FLOATS: {4: "<f4", 8: "<f8"},
}  # by the bytes of a sample
MARGIN = 1.0  # seconds beyond what is read: where a sound is cut, samples of another rate are not its own


class Sound(NamedTuple):
    """The samples of a sound, and what it was before."""

    samples: npt.NDArray[np.float32]  # in [-1, 1], at the rate that was wanted
    rate: int  # samples a second in the file
    seconds: float  # length of the whole sound
    sampling_rate: int  # that of the samples


class _Header(NamedTuple):
    format: int
    channels: int
    rate: int
    width: int  # bytes of a sample


def read_sound(path: str | Path, rate: int, seconds: float | None = None) -> Sound:
    """Read a WAV file of whole numbers or floats, its channels as their mean, at a rate of samples a second.

    ``seconds`` is how much is read, from the beginning; None: all of it.
    """
    path, name = Path(path), readable_name(path)
    check_file(path, "a sound")
    try:
        header, data = _wav_parts(path.read_bytes())
        samples = _samples(header, data)
    except (ValueError, struct.error) as error:
        reason = "its header is cut" if isinstance(error, struct.error) else error
        raise OSError(f"{name} cannot be read as a WAV file: {reason}. Convert it, or fetch it again.") from error
    return convert_sound(samples, header.rate, rate, seconds)


def convert_sound(samples: npt.NDArray[np.float64], given: int, rate: int, seconds: float | None = None) -> Sound:
    """Return samples (samples,) at another rate, cut after so many seconds."""
    whole = len(samples) / given
    if seconds is not None:
        samples = samples[: ceil((seconds + MARGIN) * given)]
    wanted = resample_sound(samples, given, rate)
    kept = wanted if seconds is None else wanted[: ceil(seconds * rate)]
    return Sound(kept.astype(np.float32), given, whole, rate)


def resample_sound(samples: npt.NDArray[np.float64], given: int, wanted: int) -> npt.NDArray[np.float64]:
    """Return samples (samples,) at another rate: all frequencies that both rates hold are kept, and no others."""
    if given == wanted:
        return samples
    step = given // gcd(given, wanted)
    # Its beginning and end meet in a Fourier transform: a tenth of a second of silence keeps them apart.
    length = ceil((len(samples) + given / 10) / step) * step
    spectrum = np.fft.rfft(samples, length)
    made = length // step * (wanted // gcd(given, wanted))
    return np.fft.irfft(spectrum[: made // 2 + 1], made)[: ceil(len(samples) * wanted / given)] * (made / length)


def _wav_parts(content: bytes) -> tuple[_Header, bytes]:
    """Return the header and the bytes of the samples."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("it does not begin as one does")
    header = None
    for name, part, size in _chunks(content):
        if name == b"fmt ":
            format, channels, rate, _, block, _ = struct.unpack_from("<HHIIHH", part)
            if format == EXTENSIBLE:
                (format,) = struct.unpack_from("<H", part, 24)
            if not channels or not rate or block % channels:
                raise ValueError(f"its header says {channels} channels, {rate} samples a second, each of {block} bytes")
            header = _Header(format, channels, rate, block // channels)
        if name == b"data" and header is not None:
            if len(part) < size < 2**32 - 1:  # the largest number stands where a recorder did not know
                raise ValueError(f"it ends too early, after {len(part)} of {size} bytes of samples")
            return header, part
    raise ValueError("it holds no samples" if header else "it has no header")


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the name of each part, its bytes as far as they are there, and how many there should be."""
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        yield name, content[place + 8 : place + 8 + size], size
        place += 8 + size + size % 2


def _samples(header: _Header, data: bytes) -> npt.NDArray[np.float64]:
    """Return the mean of the channels, (samples,)."""
    kind = SAMPLE_TYPES.get(header.format, {}).get(header.width)
    if kind is None:
        raise ValueError(
            f"its samples are of format {header.format} and {8 * header.width} bits, and only whole numbers of 8, 16, "
            "24 and 32 bits and floats of 32 and 64 are read"
        )
    block = header.channels * header.width
    numbers = np.frombuffer(data[: len(data) // block * block], kind)
    if header.format == INTEGERS and header.width == 3:  # as the upper bytes of numbers of 32 bits
        padded = np.zeros((len(numbers) // 3, 4), np.uint8)
        padded[:, 1:] = numbers.reshape(-1, 3)
        numbers = padded.view("<i4").ravel()
    if not len(numbers):
        raise ValueError("it holds no samples")
    values = numbers.astype(np.float64)
    if header.format == INTEGERS:
        full = 2.0 ** (8 * numbers.itemsize - 1)
        values = (values - (full if header.width == 1 else 0)) / full
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    mean: npt.NDArray[np.float64] = values.reshape(-1, header.channels).mean(1)
    return mean
