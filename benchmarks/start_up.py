"""How long commands take from a standing start, beside what others than this package take of it."""

import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from tempfile import TemporaryDirectory

from benchmarks.timing import Sample
from captum_gmar.demo import model_folder

# What `explain` does, by transformers alone: a model loaded and run, and what draws the picture imported.
_RUN = """
import sys, torch, matplotlib.figure
from transformers import ViTForImageClassification
model = ViTForImageClassification.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    model(torch.zeros(1, 3, model.config.image_size, model.config.image_size))
"""
_IMPORT, _NOTHING, _BARE = "import captum.attr", "Python alone", "torch, transformers and the model's pass"
MODEL, OUTPUT = "{model}", "{output}"  # folders
_OWN = {_IMPORT: ["-c", _IMPORT], _NOTHING: ["-c", ""], _BARE: ["-c", _RUN, MODEL]}
_COMMANDS = {
    f"{_IMPORT}, captum_gmar": (["-c", f"{_IMPORT}, captum_gmar"], _IMPORT),
    "captum-gmar --help": (["-m", "captum_gmar", "--help"], _NOTHING),
    "captum-gmar explain": (["-m", "captum_gmar", "explain", "--output", OUTPUT], _BARE),
}


def take_start_up(times: int) -> Generator[Sample]:
    """Time each command several times, with its comparison right before."""
    with TemporaryDirectory() as output, model_folder() as model:
        folders = {MODEL: str(model), OUTPUT: output}
        for number in range(times + 1):
            for name, (command, own) in _COMMANDS.items():
                beside, taken = _seconds(_OWN[own], folders), _seconds(command, folders)
                if number:  # the first of each brings files into memory
                    yield Sample(name, own, taken, beside)


def _seconds(command: Sequence[str], folders: Mapping[str, str]) -> float:
    whole = [sys.executable, *(folders.get(part, part) for part in command)]
    begin = time.perf_counter()
    ended = subprocess.run(whole, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with status {ended.returncode}: {ended.stderr[-200:]}")
    return seconds
