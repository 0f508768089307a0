"""Captum's contract, written once for every method that reads attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from captum_gmar._captum import (
    Attribution,
    TargetType,
    _batched_generator,
    _format_output,
    _format_tensor_into_tuples,
    _is_tuple,
    _validate_target,
    log_usage,
)
from captum_gmar.attention import Explanation, explain
from captum_gmar.models import Logits
from captum_gmar.rules import Rule

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])


class AttentionAttribution(Attribution, ABC):
    """A method that reads the attention of a vision transformer: a rule, and what Captum expects around it.

    Args:
        model: a vision transformer, for example a Hugging Face ``ViTForImageClassification``. It is used as it is, in
            its training mode, precision and device, and nothing of it is changed.
        forward_func: what is explained, if not the model's logits: a callable that takes the inputs and additional
            arguments, runs ``model`` once, and returns a tensor (N, classes), or (N,) if it is called without target.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
    """

    rule: Rule

    def __init__(self, model: nn.Module, forward_func: Callable[..., Any] | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module. Got {type(model).__name__} instead. To explain what a function "
                "makes of a model, pass the model and forward_func=."
            )
        self.model = model
        super().__init__(Logits(model if forward_func is None else forward_func))

    @classmethod
    @abstractmethod
    def get_name(cls) -> str:
        """The method's name, as it stands in tables and pictures."""

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Inputs:
        r"""
        Explains the target's logit of every example.

        Args:
            inputs (Tensor or tuple[Tensor]): Pixel values (N, channels, height, width), as the model takes them.
            target (int, tuple, Tensor, or list, optional): Output indices that are explained, usually the class:

                - a single integer, a tensor containing a single integer or a tuple of one integer, which is applied
                  to all examples

                - a list of integers, a 1D tensor or a list of tuples, with length matching the number of examples

                None is for models with one output per example.
                Default: None
            additional_forward_args (Any, optional): Further positional arguments of the model, after the inputs; a
                tensor among them has one row per example. In transformers 5, ``(None, True)`` makes a ViT interpolate
                its position embeddings to the size of the images; in 4.57 that is ``(None, None, True)``.
                Default: None
            internal_batch_size (int, optional): Splits the examples into batches of at most this size; the numbers
                stay the same.
                Default: None

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                In the shape, dtype and device of the inputs. Each patch's relevance is spread evenly over the pixels
                and channels of that patch, so that their sum over a patch is its relevance; see :meth:`relevance`,
                which for half-precision models is in single precision. A pixel's share is so small that float16
                rounds it by several percent: take :meth:`relevance` there.

        Raises:
            AssertionError: from Captum, if the target does not fit the model's output.
            ValueError: if the inputs are not one batch of images of at least a patch each.
            RuntimeError: if the model's attention cannot be met; the message says what to do.
            FloatingPointError: if a logit, gradient or relevance is NaN or infinite.
        """
        is_inputs_tuple = _is_tuple(inputs)
        pixels = pixel_values(inputs)
        explanations = self._explain(pixels, target, additional_forward_args, internal_batch_size)
        attributions = torch.cat([_spread(explanation, pixels) for explanation in explanations])
        return _format_output(is_inputs_tuple, (attributions,))

    def relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """
        The relevance of every patch, before it is spread over pixels.

        Takes what :meth:`attribute` takes and raises what it raises.

        Returns:
            Tensor (N, rows, columns), in single precision for half-precision models.
        """
        explanations = self._explain(pixel_values(inputs), target, additional_forward_args, internal_batch_size)
        return torch.cat([explanation.patch_relevance for explanation in explanations])

    def attribute_future(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not offered, as in Captum's own gradient methods."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _explain(
        self,
        pixels: Tensor,
        target: TargetType,
        additional_forward_args: object,
        internal_batch_size: int | None,
    ) -> list[Explanation]:
        if internal_batch_size is not None:
            _validate_target(len(pixels), target)
        with torch.inference_mode(False), torch.enable_grad():
            # Captum's generator warns about inputs without grad. Ours need none, but a leaf with grad keeps it quiet.
            batches = _batched_generator(leaf(pixels), additional_forward_args, target, internal_batch_size)
            return [
                explain(self.model, self.forward_func, self.rule, batch, batch_target, batch_args)
                for (batch,), batch_args, batch_target in batches
            ]


def pixel_values(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    pixels, *others = _format_tensor_into_tuples(inputs)
    if others:
        raise ValueError(
            f"Expected one tensor of pixel values but got {len(others) + 1} inputs. Pass the others as "
            "additional_forward_args."
        )
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        raise ValueError(
            "Expected floating-point pixel values of shape (examples, channels, height, width), at least one example, "
            f"but got {pixels.dtype} of shape {tuple(pixels.shape)}."
        )
    return pixels


def leaf(pixels: Tensor) -> Tensor:
    """The same numbers as a tensor of its own for autograd, also where they were made in inference mode."""
    return (pixels.clone() if pixels.is_inference() else pixels.detach()).requires_grad_()


def _spread(explanation: Explanation, pixels: Tensor) -> Tensor:
    _, channels, height, width = pixels.shape
    relevance = explanation.grid.spread(explanation.patch_relevance, height, width) / channels
    return relevance[:, None].expand(-1, channels, -1, -1).to(pixels.dtype).contiguous()
