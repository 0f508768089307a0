"""Reading the frames of a video that a model sees, and writing films. GIFs by Pillow, all else by PyAV."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageSequence, UnidentifiedImageError

from captum_gmar.files.names import check_file, readable_name
from captum_gmar.files.writing import SOFTWARE, atomic_write

SUFFIXES = (".gif", ".webp", ".apng", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")  # in a folder of videos
BY_PILLOW = (".gif", ".webp", ".apng", ".png")
PLAYED = ("libx264", "libvpx-vp9")  # encoders of what browsers play: H.264 and VP9
AT_ONCE = {"movflags": "faststart"}  # so that a browser plays a film while it loads
USUAL_SECONDS = 0.1  # of a frame, where a file does not say


class Clip(NamedTuple):
    """Frames of a video, evenly apart."""

    frames: Sequence[Image.Image]
    seconds: float  # from one of them to the next
    frame_count: int  # how many the video has


def read_video(path: str | Path, frames: int) -> Clip:
    """Read so many frames of a video, from the first to the last, evenly apart.

    GIF, animated WebP and PNG are read, and with PyAV (the extra ``[video]``) what FFmpeg reads, such as MP4. A file
    that is no video raises OSError, and one with fewer frames ValueError.
    """
    path = Path(path)
    check_file(path, "a video")
    opened = _pillows if path.suffix.lower() in BY_PILLOW else _pyavs
    with opened(path) as images:
        seconds = [image.seconds for image in images]
    count = len(seconds)
    if count < frames:
        raise ValueError(f"a video must hold at least the {frames} frames that the model takes, but got {count}.")
    wanted = [number * (count - 1) // max(frames - 1, 1) for number in range(frames)]
    with opened(path) as images:
        chosen = [image.to_image() for number, image in enumerate(images) if number in wanted]
    return Clip(chosen, sum(seconds) / frames, count)


def save_film(images: Sequence[Image.Image], path: Path, seconds: float, note: str = "") -> None:
    """Write a film as gif or mp4, by the suffix, which browsers play; each image is seen for so many seconds.

    The note, in ASCII, is the comment in its metadata.
    """
    if path.suffix.lower() == ".gif":
        first, *others = (image.quantize(method=Image.Quantize.MAXCOVERAGE) for image in images)  # keeps rare colours
        with atomic_write(path) as temporary:
            options: dict[str, Any] = {"duration": round(1000 * seconds), "loop": 0, "comment": f"{SOFTWARE} {note}"}
            first.save(temporary, "GIF", save_all=True, append_images=others, **options)
        return
    av = _pyav(path)
    width, height = (size - size % 2 for size in images[0].size)  # which the formats take alone
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4", options=AT_ONCE) as film:
        film.metadata["comment"] = f"{SOFTWARE} {note}"
        rate = Fraction(1 / seconds).limit_denominator(1000)
        stream = film.add_stream(_codec(av), rate=rate, options={"crf": "18"})  # finer than by default
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 0
        for image in images:
            film.mux(stream.encode(av.VideoFrame.from_image(image.crop((0, 0, width, height)))))
        film.mux(stream.encode())


class _Frame(NamedTuple):
    image: Any  # of Pillow, or of PyAV
    seconds: float  # that it is seen

    def to_image(self) -> Image.Image:
        image: Image.Image = self.image if isinstance(self.image, Image.Image) else self.image.to_image()
        return image.convert("RGB")


@contextmanager
def _pillows(path: Path) -> Iterator[Iterator[_Frame]]:
    try:
        with Image.open(path) as film:
            yield (_Frame(frame, _seconds(frame)) for frame in ImageSequence.Iterator(film))
    except UnidentifiedImageError as error:
        raise OSError(
            f"{readable_name(path)} cannot be read: not a film that Pillow reads. Convert it to GIF."
        ) from error
    except Exception as error:  # of a damaged file, Pillow's decoders raise nearly anything
        raise OSError(f"{readable_name(path)} cannot be read as a video: {error}. Convert it to GIF or MP4.") from error


def _seconds(frame: Image.Image) -> float:
    return float(frame.info.get("duration", 0)) / 1000 or USUAL_SECONDS


@contextmanager
def _pyavs(path: Path) -> Iterator[Iterator[_Frame]]:
    av = _pyav(path)
    try:
        with av.open(str(path)) as film:
            if not film.streams.video:
                raise OSError(f"{readable_name(path)} cannot be read: it holds no pictures. Pass a video.")
            stream = film.streams.video[0]
            rate = stream.average_rate
            seconds = 1 / float(rate) if rate else USUAL_SECONDS
            yield (_Frame(frame, seconds) for frame in film.decode(stream))
    except av.error.FFmpegError as error:
        raise OSError(
            f"{readable_name(path)} cannot be read as a video: {error.strerror or error}. Convert it to GIF or MP4, or "
            "fetch it again."
        ) from error


def _pyav(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise OSError(
            f"{readable_name(path)} cannot be read: its format needs PyAV. "
            'Run pip install -e ".[video]" in a clone, or take a GIF.'
        ) from error
    return av


def _codec(av: Any) -> str:
    """Return the encoder that this PyAV has, H.264's before VP9's."""
    found = next((name for name in PLAYED if name in av.codecs_available), None)
    if found is None:
        raise OSError("it needs H.264 or VP9, which this PyAV lacks")
    return found
