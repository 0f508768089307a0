"""A user's request to a method: pixel values, targets and further arguments.

Letters in shapes: N examples, K targets of each.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from captum_gmar.engine._captum import (
    TargetType,
    _format_additional_forward_args,
    _format_tensor_into_tuples,
    _tuple_splice_range,
    _validate_target,
)

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
OfExamples = TypeVar("OfExamples")
Targets: TypeAlias = Sequence[int] | Sequence[tuple[int, ...]] | Tensor
ChooseTargets: TypeAlias = Callable[[Tensor], Tensor]
"""A function from logits (N, classes) to targets (N, K), for example ``lambda logits: logits.topk(5).indices``."""


class Request(NamedTuple):
    """The arguments of a method beside the pixel values."""

    targets: Sequence[TargetType] | ChooseTargets  # K, each in a form that Captum takes or a function of the logits
    additional_forward_args: object = None  # after the pixels; tensors have one row per example
    internal_batch_size: int | None = None  # how many examples run at once at most; None: all
    contrast: TargetType = None  # outputs whose logits are subtracted from each target's

    def checked(self, examples: int) -> "Request":
        """Return the request with Python's integers for numpy's; check that lists are as long as there are examples."""
        targets = self.targets if callable(self.targets) else [plain_target(target) for target in self.targets]
        request = self._replace(targets=targets, contrast=plain_target(self.contrast))
        if self.internal_batch_size is not None:  # else a batch could not tell
            for target in (*(() if callable(targets) else targets), request.contrast):
                _validate_target(examples, target)
        return request

    def batches(self, pixels: Tensor) -> Iterator[tuple[Tensor, "Request"]]:
        """Yield the pixels (N, channels, height, width) in batches, with the request for each."""
        size = len(pixels) if self.internal_batch_size is None else self.internal_batch_size
        if not isinstance(size, int) or size < 1:
            raise AssertionError("Batch size must be greater than 0.")
        arguments = _format_additional_forward_args(self.additional_forward_args)
        for start in range(0, len(pixels), size):
            batch = slice(start, min(start + size, len(pixels)))
            targets = self.targets if callable(self.targets) else [_part(t, batch, len(pixels)) for t in self.targets]
            batch_arguments = _tuple_splice_range(arguments, batch.start, batch.stop)
            yield pixels[batch], Request(targets, batch_arguments, contrast=_part(self.contrast, batch, len(pixels)))

    def targets_for(self, logits: Tensor | None, examples: int) -> Sequence[TargetType]:
        """Return K targets, chosen by the logits (N, classes) if the request asks for that."""
        if not callable(self.targets):
            return self.targets
        assert logits is not None
        chosen = self.targets(logits)
        if not isinstance(chosen, Tensor) or chosen.dim() != 2:
            shape = tuple(chosen.shape) if isinstance(chosen, Tensor) else type(chosen).__name__
            raise ValueError(
                f"targets must return a tensor (N, K) of classes for the logits (N, classes), such as "
                f"logits.topk(5).indices, but got {shape} for {examples} examples."
            )
        return each_target(chosen, examples)


def explain_in_halves(
    run: Callable[[Tensor, Request], OfExamples], pixels: Tensor, request: Request
) -> list[OfExamples]:
    """Run on all examples, or on each half where memory does not hold all; return the results in their order."""
    try:
        return [run(pixels, request)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(pixels) == 1:
            raise _out_of_memory(pixels, error) from error
    # Only here are the frames gone in which the error was raised, and what they held.
    half = request._replace(internal_batch_size=-(-len(pixels) // 2))
    return [result for batch in half.batches(pixels) for result in explain_in_halves(run, *batch)]


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was short: on a CPU torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)


def _out_of_memory(pixels: Tensor, error: Exception) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(
        f"{pixels.device} must have memory for one example of shape {tuple(pixels.shape)}, but has too little "
        f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Pass smaller images or a smaller "
        "model, or free memory first."
    )


def _part(target: TargetType, examples: slice, count: int) -> TargetType:
    """Return the targets of some examples; a target for all stays as it is."""
    if examples == slice(0, count):  # the whole target, so that Captum sees what it rejects
        return target
    is_each = isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1)
    return target[examples] if is_each else target  # type: ignore[index]


def plain_target(target: Any) -> Any:
    """Return a target of numpy's integers as one of Python's, or an array of them as a tensor."""
    if isinstance(target, list):
        return [plain_target(each) for each in target]
    if isinstance(target, np.ndarray):
        return torch.from_numpy(target)
    return int(target) if isinstance(target, np.integer) else target


def each_target(targets: Targets, examples: int) -> list[TargetType]:
    """Return K targets for N examples, each in a form that Captum takes.

    ``targets`` are K classes for all examples, as a sequence or a tensor (K,), or a tensor (N, K) of each example's
    own.

    >>> import torch
    >>> each_target([281, 282], examples=3)
    [281, 282]
    >>> each_target(torch.tensor([[1, 2], [3, 4], [5, 6]]), examples=3)
    [tensor([1, 3, 5]), tensor([2, 4, 6])]
    """
    if isinstance(targets, Tensor):
        if targets.dim() not in (1, 2) or (targets.dim() == 2 and len(targets) != examples) or not targets.numel():
            raise ValueError(
                f"targets must be a tensor (K,) of classes for all examples, or (N, K) for {examples} examples, at "
                f"least one each, but got shape {tuple(targets.shape)}."
            )
        return list(targets.unbind(-1))
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise TypeError(f"targets must be a sequence or tensor, but got {type(targets).__name__}. Pass [target].")
    if any(isinstance(target, list) or (isinstance(target, Tensor) and target.dim()) for target in targets):
        raise TypeError(
            "targets must be a sequence of classes for all examples, but got a sequence of lists or tensors. Pass "
            "classes of each example's own as a tensor (N, K)."
        )
    if not targets:
        raise ValueError("targets must be at least one, but got none.")
    return list(targets)


IMAGES = "(examples, channels, height, width)"
OTHER_INPUTS = {
    5: "(examples, frames, channels, height, width) of videos",
    3: "(examples, time, bins) of spectrograms or (examples, patches, numbers) of images that are cut already",
}


def pixel_values(inputs: Tensor | tuple[Tensor, ...], *, takes_others: bool = False) -> Tensor:
    """Return the one floating-point tensor (N, channels, height, width) among a user's inputs.

    With ``takes_others`` it may also be one of videos, spectrograms or images that are cut into patches already. A
    transform of ``torch.func`` or a tangent of forward-mode differentiation raises RuntimeError.
    """
    tensors = _format_tensor_into_tuples(inputs)
    if not tensors:
        raise ValueError(f"inputs must be a tensor of pixel values, but got {inputs!r}.")
    pixels, *further = tensors
    is_dual = unpack_dual(pixels).tangent is not None  # type: ignore[no-untyped-call]
    if is_dual or torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "inputs must be plain tensors outside of torch.func's transforms (grad, vmap, jvp) and forward-mode "
            "differentiation, but got one within. Call the method outside of them."
        )
    if further:
        raise ValueError(
            f"inputs must be one tensor of pixel values, but got {len(further) + 1} inputs. Pass the others as "
            "additional_forward_args."
        )
    others = OTHER_INPUTS if takes_others else {}
    if not _has_values(pixels):
        kind = "a nested one" if pixels.is_nested else "one on meta" if pixels.is_meta else f"{pixels.layout}"
        raise ValueError(f"inputs must be a dense tensor with values, but got {kind}.")
    if pixels.dim() not in (4, *others) or not len(pixels) or not pixels.is_floating_point():
        shapes = " or ".join([IMAGES, *others.values()])
        hint = "" if takes_others or pixels.dim() not in OTHER_INPUTS else " Use TokenEvidence for other shapes."
        raise ValueError(
            f"inputs must be floating-point pixel values of shape {shapes}, at least one example, but got "
            f"{pixels.dtype} of shape {tuple(pixels.shape)}.{hint}"
        )
    return pixels


def _has_values(pixels: Tensor) -> bool:
    return not (pixels.is_nested or pixels.is_meta or pixels.layout is not torch.strided)


def mark(inputs: Tensor) -> Tensor:
    """Return the same numbers as the result of an operation, from which their use is traced in autograd's graph."""
    return inputs.detach() + torch.zeros((), dtype=inputs.dtype, device=inputs.device, requires_grad=True)


def leaf(pixels: Tensor) -> Tensor:
    """Return the same numbers as a leaf of autograd's graph, also if they were made in inference mode."""
    return (pixels.clone() if pixels.is_inference() else pixels.detach()).requires_grad_()
