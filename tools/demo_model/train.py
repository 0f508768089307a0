"""Train the demo model from scratch: `python -m tools.demo_model.train --output folder`.

Two stages. The first sees crops of the scenes, a quarter of their area with an object in it, because a step
on them costs a quarter; the second sees whole scenes. In both, throw-away heads ask every patch which class,
form and texture it shows. That teaches patches to recognise, and leaves CLS to gather what they found.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from torch import nn

from captum_gmar.demo.drawing import SIZE
from captum_gmar.demo.patches import GRID
from tools.demo_model.batches import QUESTIONS, render_pool
from tools.demo_model.card import write_card
from tools.demo_model.fitting import Fit, Stage
from tools.demo_model.gradients import QUESTIONED_LAYERS, Task
from tools.demo_model.measures import accuracy
from tools.demo_model.network import WIDTH, build_model, grow

TRAINING_SEEDS: Final = 1_000_000  # scenes of smaller seeds are never trained on
SPARED: Final = 2**4  # of the last digits of a float32
_REPORT_EVERY: Final = 500  # steps


STAGES: Final = (
    Stage(side=7, scenes=24_000, steps=4_000, batch_size=64, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=24_000, steps=4_500, batch_size=32, rates=(1e-3, 1e-5)),
)


def train(output: Path, seed: int = 0, stages: Sequence[Stage] = STAGES, workers: int = 2) -> None:
    """Train a model and write it, its image processor, its training record and its card into a folder.

    If it is stopped, calling it again goes on from the last report.
    """
    progress = _Progress(output / "unfinished.pt")
    torch.manual_seed(seed)
    model, heads = build_model(stages[0].side), _build_heads()
    first_seed = TRAINING_SEEDS * (1 + seed)
    seeds = range(first_seed, first_seed + sum(stage.scenes for stage in stages))
    for index, stage in enumerate(stages):
        if stage.side == GRID:
            model = grow(model)
        if index >= progress.stage:
            pool = render_pool(first_seed, stage.scenes, workers)
            fit = Fit(Task(model, heads, pool, stage.batch_size, stage.side, seed), stage)
            progress.resume(index, fit)
            for loss in fit.run(workers):
                if fit.step % _REPORT_EVERY == 0:
                    _report(fit, loss, progress.keep(index, fit))
        first_seed += stage.scenes
    round_weights(model)
    model.eval().save_pretrained(output)
    save_processor(output)
    _save_record(output, seed, seeds, stages, workers, progress.seconds)
    write_card(output)
    progress.forget()


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Rounds every weight to its 20 leading binary digits, so that the file can be packed: to a millionth of itself."""
    for parameter in model.parameters():
        bits = parameter.view(torch.int32)
        bits.copy_((bits + SPARED // 2) & -SPARED)


class _Progress:
    """How far training came, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, Any] = {"stage": 0, "seconds": 0.0}
        if path.exists():
            self._kept = torch.load(path, weights_only=True)
        self._began = time.perf_counter() - self._kept["seconds"]
        self.stage: int = self._kept["stage"]

    @property
    def seconds(self) -> float:
        """Time spent in all, without the time between processes."""
        return float(time.perf_counter() - self._began)

    def resume(self, stage: int, fit: Fit) -> None:
        if stage == self.stage and "fit" in self._kept:
            fit.load_state(self._kept["fit"])

    def keep(self, stage: int, fit: Fit) -> float:
        """Write the state of a stage and return the seconds spent so far."""
        self._kept = {"stage": stage, "seconds": self.seconds, "fit": fit.state()}
        # Renamed into place, so that stopping it now leaves the former file whole.
        torch.save(self._kept, partial := self._path.with_suffix(".part"))
        partial.replace(self._path)
        self.stage = stage
        return self.seconds

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def _build_heads() -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(QUESTIONS))) for _ in QUESTIONED_LAYERS
    )


def _report(fit: Fit, loss: float, seconds: float) -> None:
    line = f"side {fit.stage.side}  step {fit.step}/{fit.stage.steps}  {seconds:.0f} s  loss {loss:.3f}"
    if fit.stage.side == GRID:
        model = fit.task.model.eval()
        one, two = (accuracy(model, objects, range(300)) for objects in (1, 2))
        line += f"  one object {one}  two objects {two}"
        model.train()
    print(line, flush=True)


def save_processor(output: Path) -> None:
    # Written by hand because the fields that save_pretrained writes differ from version to version.
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _save_record(output: Path, seed: int, seeds: range, stages: Sequence[Stage], workers: int, seconds: float) -> None:
    """Keep what the card must tell of the training, so that the card can be written again without it."""
    record = {
        "how": f"`python -m tools.demo_model.train --seed {seed}`",
        "first_scene_seed": seeds.start,
        "last_scene_seed": seeds[-1],
        "minutes": round(seconds / 60, 1),
        "processes": workers,
        "steps": ", then ".join(f"{stage.steps} steps of {stage.batch_size} images" for stage in stages),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (output / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model.train", description="Train the model.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("demo-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights, order and scenes (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: one per processor)")
    add("--shorten", type=float, default=1.0, help="divide all steps and scenes by this, for a trial")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    stages = [_shortened(stage, arguments.shorten) for stage in STAGES]
    train(arguments.output, arguments.seed, stages, arguments.workers)


def _shortened(stage: Stage, divisor: float) -> Stage:
    return replace(stage, scenes=int(stage.scenes / divisor), steps=int(stage.steps / divisor))


if __name__ == "__main__":
    main()
