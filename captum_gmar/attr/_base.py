"""Captum's contract, written once for every method that reads attention."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from captum_gmar.attr.relevance_flow import RelevanceFlow, followed, relevance_flow
from captum_gmar.engine._captum import (
    Attribution,
    TargetType,
    _batched_generator,
    _format_output,
    _is_tuple,
    _validate_target,
    log_usage,
)
from captum_gmar.engine.explain import Explanation, Plan, explain_targets
from captum_gmar.engine.inputs import Targets, each_target, leaf, pixel_values
from captum_gmar.engine.models import Logits, check_model
from captum_gmar.engine.start_tokens import check_start

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])

NO_GRADIENT = (
    "All gradients of an attention layer are zero for at least one example: the target does not depend on its "
    "attention there. Methods that weigh heads weigh them the same, and others learn nothing from that layer."
)


class AttentionAttribution(Attribution, ABC):
    """A method that reads the attention of a vision transformer: a plan, and what Captum expects around it.

    Args:
        model: a vision transformer, for example a Hugging Face ``ViTForImageClassification``. It is used as it is, in
            its training mode, precision and device, and nothing of it is changed. Of one wrapped for data parallelism,
            what is wrapped is used.
        plan: what the method makes of the layers.
        forward_func: what is explained, if not the model's logits: a callable that takes the inputs and additional
            arguments, runs ``model`` once, and returns a tensor (N, classes), or (N,) if it is called without target.

    Raises:
        TypeError: if ``model`` is no ``torch.nn.Module``.
        TypeError, ValueError: if the plan's tokens are none of the forms they take.
    """

    def __init__(self, model: nn.Module, plan: Plan, forward_func: Callable[..., Any] | None = None) -> None:
        check_model(model)
        check_start(plan.tokens)
        self.model = model
        self.plan = plan
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
        contrast: TargetType = None,
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
            contrast (int, tuple, Tensor, or list, optional): Output indices in the forms of ``target``, whose logits
                are taken off: explains why the target rather than these. Like the target, it means nothing to methods
                without gradient.
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
        is_inputs_tuple, pixels = _is_tuple(inputs), pixel_values(inputs)
        explanations = self._explain(pixels, target, additional_forward_args, internal_batch_size, contrast)
        attributions = explanations[0].grid.spread_like(_relevance(explanations), pixels)
        return _format_output(is_inputs_tuple, (attributions,))

    def relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Tensor:
        """
        The relevance of every patch, before it is spread over pixels.

        Takes what :meth:`attribute` takes and raises what it raises.

        Returns:
            Tensor (N, rows, columns), in single precision for half-precision models.
        """
        pixels = pixel_values(inputs)
        return _relevance(self._explain(pixels, target, additional_forward_args, internal_batch_size, contrast))

    def attribute_targets(
        self,
        inputs: Inputs,
        targets: Targets,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Inputs:
        """
        Explains several targets of every example: what :meth:`attribute` gives for each, of one forward pass together
        and one backward pass each.

        Args:
            targets (sequence of int, or Tensor): K classes for all examples, or a tensor (N, K) of each example's own,
                such as ``logits.topk(5).indices``. A sequence may also hold tuples, as a target may be one.

        inputs, additional_forward_args, internal_batch_size and contrast, which is taken off each of the targets, are
        those of :meth:`attribute`, and so are the errors. Methods without gradient explain every target alike.

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                (N, K, channels, height, width). It holds K times what the inputs do: see :meth:`relevance_of_targets`
                for the numbers of patches alone.

        Raises:
            TypeError, ValueError: if the targets are none of these forms.

        Example::

            >>> from captum_gmar import GMARAttribution
            >>> from captum_gmar.demo import load_model, load_scene
            >>> model, pixels = load_model(), load_scene(3).pixel_values
            >>> most_likely = model(pixels).logits.topk(5).indices
            >>> GMARAttribution(model).attribute_targets(pixels, most_likely).shape
            torch.Size([1, 5, 3, 112, 112])
        """
        is_inputs_tuple, pixels = _is_tuple(inputs), pixel_values(inputs)
        of_targets = self._explain_targets(
            pixels, each_target(targets, len(pixels)), additional_forward_args, internal_batch_size, contrast
        )
        grid = of_targets[0][0].grid
        attributions = torch.stack([grid.spread_like(_relevance(own), pixels) for own in of_targets], 1)
        return _format_output(is_inputs_tuple, (attributions,))

    def relevance_of_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Targets,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Tensor:
        """
        The relevance of every patch for several targets, before it is spread over pixels.

        Takes what :meth:`attribute_targets` takes, costs what it costs and raises what it raises.

        Returns:
            Tensor (N, K, rows, columns), in single precision for half-precision models.
        """
        pixels = pixel_values(inputs)
        of_targets = self._explain_targets(
            pixels, each_target(targets, len(pixels)), additional_forward_args, internal_batch_size, contrast
        )
        return torch.stack([_relevance(own) for own in of_targets], 1)

    def relevance_flow(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> RelevanceFlow:
        """
        The relevance below each layer, on its way from the last layer to the first, of methods that hand it down.

        Takes what :meth:`attribute` takes and raises what it raises. It costs the same pass.

        Returns:
            *RelevanceFlow* of **relevance**, **prefix_share** and **layers**, in the order of the flow, last layer
            first:

            - **relevance** (*Tensor*): (N, L, rows, columns) of the patches. The last is what :meth:`relevance` gives.
            - **prefix_share** (*Tensor*): (N, L), the share of all relevance that the prefix tokens hold.
            - **layers** (*tuple[int]*): The layers' numbers.

        Raises:
            ValueError: if the method hands no relevance down: Grad-SAM, LeGrad, attention evidence and published GMAR
                do not, nor do the recursions "forward" and "additive".
        """
        pixels, (plan, follower) = pixel_values(inputs), followed(self.plan, self.get_name())
        explanations = self._explain(pixels, target, additional_forward_args, internal_batch_size, contrast, plan)
        flow = follower.flow([len(explanation.relevance) for explanation in explanations])
        return relevance_flow(flow, explanations[0], self.plan.start_layer)

    def attribute_future(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not offered, as in Captum's own gradient methods."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _explain(
        self,
        pixels: Tensor,
        target: TargetType,
        additional_forward_args: object,
        internal_batch_size: int | None,
        contrast: TargetType,
        plan: Plan | None = None,
    ) -> list[Explanation]:
        """Of each batch."""
        asked = additional_forward_args, internal_batch_size, contrast, plan
        return self._explain_targets(pixels, [target], *asked)[0]

    def _explain_targets(
        self,
        pixels: Tensor,
        targets: Sequence[TargetType],
        additional_forward_args: object,
        internal_batch_size: int | None,
        contrast: TargetType,
        plan: Plan | None = None,
    ) -> list[list[Explanation]]:
        """Of each target, of each batch."""
        plan = plan or self.plan
        asked, contrast = (targets, contrast) if plan.rule else ([None], None)  # without a rule, all targets are alike
        if internal_batch_size is not None:
            for target in (*asked, contrast):
                _validate_target(len(pixels), target)
        with torch.inference_mode(False), torch.enable_grad():
            # Captum's generator warns about inputs without grad. Ours need none, but a leaf with grad keeps it quiet.
            batches = partial(_batched_generator, leaf(pixels), internal_batch_size=internal_batch_size)
            of_targets = [batches(target_ind=target) for target in asked]
            explanations = [
                self._explain_batch(plan, batch, [target for _, _, target in own], batch_args, batch_contrast)
                for ((batch,), batch_args, batch_contrast), *own in zip(
                    batches(additional_forward_args, contrast), *of_targets, strict=True
                )
            ]
        if any(explanation.without_gradient for batch in explanations for explanation in batch):
            warnings.warn(NO_GRADIENT, stacklevel=_users_stack_level())
        by_target = [list(own) for own in zip(*explanations, strict=True)]
        return by_target if plan.rule else by_target * len(targets)

    def _explain_batch(
        self,
        plan: Plan,
        inputs: Tensor,
        targets: Sequence[TargetType],
        additional_forward_args: object,
        contrast: TargetType,
    ) -> list[Explanation]:
        """Of each target."""
        forward_func: Any = self.forward_func
        if plan.rule is None:  # then the model's output does not matter, and may be anything
            forward_func = forward_func.forward_func
        return explain_targets(self.model, forward_func, plan, inputs, targets, additional_forward_args, contrast)


def _relevance(explanations: Sequence[Explanation]) -> Tensor:
    """(N, rows, columns) of all batches."""
    return torch.cat([explanation.patch_relevance for explanation in explanations])


def _users_stack_level() -> int:
    """How far above the caller the code lies that is neither ours nor Captum's."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("captum", "captum_gmar"):
        level, frame = level + 1, frame.f_back
    return level - 1
