"""Maps of fixed images while a model is trained, by transformers' Trainer, Lightning or a loop of one's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.token_evidence import TokenEvidence
from captum_gmar.engine._captum import TargetType
from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.engine.request import pixel_values
from captum_gmar.files.writing import save_picture
from captum_gmar.metrics._inputs import check_count
from captum_gmar.visualization.comparison import visualize_comparison


class TrainingMaps:
    """A picture of the maps of fixed images, drawn every so many steps of a training.

    The model is explained in evaluation mode. Its modes, weights, buffers and gradients stay as they are, and so does
    torch's random state: the training goes on as if no map had been drawn. Of several processes all explain, and the
    first one writes.

    Args:
        inputs (Tensor): Pixel values (N, channels, height, width), as the model takes them. The picture shows them
            between their least and their largest value.
        target (int, tuple, Tensor, or list, optional): What is explained, in a form of
            :meth:`~captum_gmar.TokenEvidence.attribute`.
        every (int): Steps of the optimizer from one picture to the next. The first is drawn before the first step.
        folder (str or Path, optional): Where ``step-00000500.png`` and the others are written.
        writer (Any, optional): What has the ``add_figure(tag, figure, global_step)`` of torch's ``SummaryWriter``.
        method (Callable, optional): Makes the method of a model: a class of this package, or a function that passes
            options to it. Default: :class:`~captum_gmar.TokenEvidence`.

    Raises:
        TypeError, ValueError: if the inputs are no such batch, ``every`` is no positive integer, or neither a folder
            nor a writer is given.

    Example::

        >>> import tempfile
        >>> from pathlib import Path
        >>> from captum_gmar.inspection.training import TrainingMaps
        >>> from captum_gmar.demo import load_model, load_scene
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     maps = TrainingMaps(load_scene(3).pixel_values, target=1, every=100, folder=folder)
        ...     maps.draw(load_model(), step=100)
        ...     [path.name for path in Path(folder).iterdir()]
        ['step-00000100.png']
    """

    def __init__(
        self,
        inputs: Tensor,
        target: TargetType = None,
        *,
        every: int,
        folder: str | Path | None = None,
        writer: Any = None,
        method: Callable[[nn.Module], AttentionAttribution] = TokenEvidence,
    ) -> None:
        check_count(every, "every")
        if folder is None and writer is None:
            raise ValueError("folder must be given, but neither it nor a writer is. Pass one of them, or both.")
        self.inputs = pixel_values(inputs).detach().clone()
        self.target, self.every, self.method = target, every, method
        self.folder, self.writer = folder and Path(folder), writer
        self._last: int | None = None

    def draw(self, model: nn.Module, step: int) -> None:
        """Explain the images by the model as it is now, and write the picture of this step.

        Raises:
            OSError: if the file cannot be written. All other errors are those of the method.
        """
        check_model(model)
        with _undisturbed(model) as weight:
            method = self.method(model)
            relevance = method.relevance(self.inputs.to(weight), self.target).float().cpu()
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
            return
        low, high = (edge.view(-1, 1, 1, 1) for edge in self.inputs.flatten(1).aminmax(dim=1))
        photos = ((self.inputs - low) / (high - low).clamp_min(1e-12)).float().cpu()
        maps = {method.get_name(): relevance}
        figure, _ = visualize_comparison(maps, photos, title=f"step {step}", use_pyplot=False)
        if self.folder:
            save_picture(figure, self.folder / f"step-{step:08}.png")
        if self.writer is not None:
            self.writer.add_figure("relevance", figure, step)

    def trainer_callback(self) -> Any:
        """Return the callback of transformers' ``Trainer``."""
        from transformers import TrainerCallback

        draw = self._draw_in_turn

        class TrainerMaps(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **others: Any) -> None:
                draw(model, state.global_step)

            on_step_end = on_train_begin

        return TrainerMaps()

    def lightning_callback(self) -> Any:
        """Return the callback of Lightning's ``Trainer``.

        Raises:
            ImportError: if ``lightning`` is not installed.
        """
        try:
            from lightning import Callback  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise ImportError(
                "lightning_callback needs Lightning, but it is not installed. Run pip install lightning."
            ) from error
        draw = self._draw_in_turn

        class LightningMaps(Callback):  # type: ignore[misc]
            def on_train_start(self, trainer: Any, pl_module: nn.Module, *batch: Any) -> None:
                draw(pl_module, trainer.global_step)

            on_train_batch_end = on_train_start

        return LightningMaps()

    def _draw_in_turn(self, model: nn.Module, step: int) -> None:
        """Draw the step if it is a multiple of ``every``, once."""
        if step % self.every == 0 and step != self._last:
            self._last = step
            self.draw(model, step)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[Tensor]:
    """Yield a weight of floats with the model in evaluation mode, and leave modes and random numbers as they were."""
    weight = next(weight for weight in model.parameters() if weight.is_floating_point())
    device, modes = weight.device, {module: module.training for module in model.modules()}
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        model.eval()
        try:
            yield weight
        finally:
            for module, mode in modes.items():
                module.training = mode
