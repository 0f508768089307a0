"""Put the trained answering model into the package: `python -m tools.answering_model.pack folder`.

Its vision tower's weights are those of the built-in classifier, which the package has already: what is left goes into a
file in half precision.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Final

from safetensors.torch import save_file
from transformers import LlavaForConditionalGeneration

from captum_gmar import demo

_COPIED: Final = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_TOWER: Final = "model.vision_tower."


def pack(source: Path, target: Path) -> None:
    """Copy a trained model from one folder to the other, in half precision what the classifier does not hold of it."""
    target.mkdir(exist_ok=True)
    for name in _COPIED:
        shutil.copyfile(source / name, target / name)
    model = LlavaForConditionalGeneration.from_pretrained(source, local_files_only=True)
    there = {f"{_TOWER}{name}" for name in demo.load_model().vit.state_dict()} | {"lm_head.weight"}
    rest = {name: value.half().contiguous() for name, value in model.state_dict().items() if name not in there}
    save_file(rest, target / "decoder.safetensors", {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.answering_model.pack", description=pack.__doc__)
    parser.add_argument("folder", type=Path, help="that the training wrote")
    with demo.answering_folder() as target:
        pack(parser.parse_args().folder, target)


if __name__ == "__main__":
    main()
