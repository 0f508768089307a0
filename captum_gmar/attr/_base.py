"""Captum's contract, written once for every method that reads attention."""

import inspect
import warnings
from abc import ABC
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, NoReturn, cast

import torch
from torch import Tensor, nn

from captum_gmar.attr.relevance_flow import RelevanceFlow, add_follower, relevance_flow
from captum_gmar.engine._captum import Attribution, TargetType, _format_output, _is_tuple, log_usage
from captum_gmar.engine.explain import Pass, explain_model
from captum_gmar.engine.models.patch_grid import Logits, check_classifies, check_model, frame_count, logits_of
from captum_gmar.engine.models.readout_tokens import check_start
from captum_gmar.engine.plan import Explanation, Plan
from captum_gmar.engine.request import (
    ChooseTargets,
    Inputs,
    Request,
    Targets,
    each_target,
    explain_in_halves,
    pixel_values,
)
from captum_gmar.engine.rule import head_weights

IMAGE_DIMS = 4
NO_GRADIENT = (
    "All gradients of an attention layer are zero for at least one example: the target does not depend on its "
    "attention there. Methods that weigh heads weigh them the same, and others learn nothing from that layer."
)


class TargetMaps(NamedTuple):
    """The result of :meth:`AttentionAttribution.explain` for N examples and K targets of each."""

    logits: Tensor  # (N, classes), detached; (0,) where a method without gradient met none
    targets: Any  # as they were passed, or (N, K) as they were chosen
    relevance: Tensor  # (N, K, rows, columns), in single precision for half-precision models
    head_importance: Tensor | None  # (N, K, layers from the start layer on, heads), if the method weighs heads


class AttentionAttribution(Attribution, ABC):
    """A method that reads the attention of a vision transformer: a plan, and what Captum expects around it.

    Args:
        model: a vision transformer, for example a Hugging Face ``ViTForImageClassification``. It runs unchanged, in its
            own training mode, precision and device. For a data-parallel wrapper, the wrapped model runs.
        plan: the method's computation over the layers.
        forward_func: function to explain in place of the model's logits. It takes the inputs and additional arguments,
            runs ``model`` once, and returns a tensor (N, classes), or (N,) for calls without target.

    Raises:
        TypeError, ValueError: if ``model`` is not a ``torch.nn.Module``, or an option is not valid; when called, if a
            method that needs layers does not find them, or finds one without attention over the patch grid.
    """

    name: ClassVar[str]
    passes: ClassVar[tuple[Pass, ...]] = (Pass.ATTENTION, Pass.WINDOWS)  # the model's structure tells which explains it
    weighs_heads: ClassVar[bool] = False  # by GMAR's importance, which `explain` then gives as well

    def __init__(self, model: nn.Module, plan: Plan, forward_func: Callable[..., Any] | None = None) -> None:
        check_model(model)
        check_start(plan.tokens)
        if forward_func is None:
            check_classifies(model)
        self.model = model
        self.plan = plan
        super().__init__(Logits(model if forward_func is None else forward_func))

    @classmethod
    def get_name(cls) -> str:
        """Return the method's name in tables and pictures."""
        return cls.name

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Inputs:
        r"""Explain the target's logit of every example.

        Args:
            inputs (Tensor or tuple[Tensor]): Pixel values (N, channels, height, width), as the model takes them.
            target (int, tuple, Tensor, or list, optional): Output indices to explain, usually the class:

                - a single integer, a tensor containing a single integer or a tuple of one integer, which is applied
                  to all examples; a negative one counts from the end

                - a list of integers, a 1D tensor or a list of tuples, with length matching the number of examples

                Outputs of more dimensions need complete tuples, such as (query, class) or (class, row, column). None is
                for models with one output per example. Default: None.
            additional_forward_args (Any, optional): Further positional arguments of the model, after the inputs; a
                tensor among them has one row per example. In transformers 5, ``(None, True)`` makes a ViT interpolate
                its position embeddings to the size of the images; in 4.57 ``(None, None, True)``. Default: None.
            internal_batch_size (int, optional): Splits the examples into batches of at most this size; the numbers
                stay the same. Default: None.
            contrast (int, tuple, Tensor, or list, optional): Output indices in the forms of ``target``, other than the
                target. Their logits are subtracted, so the map explains why the target rather than these. Methods
                without gradient ignore target and contrast. Default: None.

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                In the shape, dtype and device of the inputs. Each patch's relevance is spread evenly over its pixels
                and channels and is their sum. In float16 a pixel's share is rounded by several percent; use
                :meth:`relevance` there, which is in single precision for half-precision models.

        Raises:
            AssertionError: from Captum, if target or contrast has none of these forms.
            TypeError, ValueError: if target or contrast is not a complete index of an output, or both are equal; if the
                inputs are not one batch of images of at least one patch.
            RuntimeError: if the model's attention cannot be captured, or ``forward_func`` runs other models or returns
                other rows; the message says what to do.
            FloatingPointError: if a logit, gradient or relevance is NaN or infinite.
            torch.OutOfMemoryError: if memory cannot hold one example. Batches that memory cannot hold are split.
        """
        pixels = self._inputs(inputs)
        request = Request([target], additional_forward_args, internal_batch_size, contrast)
        (batches,) = self._explain(pixels, request)
        attributions = batches[0].grid.spread_like(_patch_relevance(batches), pixels)
        return _format_output(_is_tuple(inputs), (attributions,))

    def relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> Tensor:
        """Compute the relevance of every patch, before it is spread over pixels.

        Arguments and errors are those of :meth:`attribute`.

        Returns:
            Tensor (N, rows, columns), on the device of the inputs, in single precision for half-precision models.
        """
        request = Request([target], additional_forward_args, internal_batch_size, contrast)
        (batches,) = self._explain(self._inputs(inputs), request)
        return _patch_relevance(batches)

    def explain(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        targets: Targets | ChooseTargets,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> TargetMaps:
        """Explain several targets of every example, in one forward pass, and one backward pass for each target.

        Args:
            targets (sequence, Tensor or Callable): K classes for all examples; a tensor (N, K) of classes for each
                example, such as ``logits.topk(5).indices``; or a callable that returns it for the logits (N, classes),
                such as ``lambda logits: logits.topk(5).indices``. A sequence may hold tuples, as a target may be one.
                With an internal batch size, the callable gets the logits of one batch at a time.

        The other arguments are those of :meth:`attribute`. The contrast is subtracted from each target. Methods without
        gradient return the same map for every target.

        Returns:
            :class:`TargetMaps`: the map of :meth:`relevance` for each target, and the logits of the same pass.

        Raises:
            TypeError, ValueError: if the targets have none of these forms, or a callable needs logits and there are
                none. All other errors are those of :meth:`attribute`.

        Example::

            >>> from captum_gmar import GMARAttribution
            >>> from captum_gmar.demo import load_model, load_scene
            >>> maps = GMARAttribution(load_model()).explain(
            ...     load_scene(3).pixel_values, lambda logits: logits.topk(2).indices
            ... )
            >>> maps.logits.shape, maps.relevance.shape, maps.head_importance.shape
            (torch.Size([1, 12]), torch.Size([1, 2, 14, 14]), torch.Size([1, 2, 6, 4]))
        """
        pixels = self._inputs(inputs)
        each = targets if callable(targets) else each_target(targets, len(pixels))
        per_target = self._explain(pixels, Request(each, additional_forward_args, internal_batch_size, contrast))
        logits = [explanation.logits for explanation in per_target[0]]
        has_logits = callable(targets) or None not in logits
        return TargetMaps(
            torch.cat([logits_of(batch) for batch in logits]) if has_logits else torch.empty(0),
            torch.stack(list(map(_chosen_targets, per_target)), 1) if callable(targets) else targets,
            torch.stack([_patch_relevance(batches) for batches in per_target], 1),
            torch.stack([_head_shares(batches) for batches in per_target], 1) if self.weighs_heads else None,
        )

    def relevance_flow(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        contrast: TargetType = None,
    ) -> RelevanceFlow:
        """Compute the relevance below each layer, for methods that propagate it from the last layer to the first.

        Arguments and errors are those of :meth:`attribute`. It costs no further pass.

        Returns:
            *RelevanceFlow* of **relevance**, **prefix_share** and **layers**, in the order of the flow, last layer
            first:

            - **relevance** (*Tensor*): (N, L, rows, columns) of the patches. The last is what :meth:`relevance` gives.
            - **prefix_share** (*Tensor*): (N, L), the share of all relevance that the prefix tokens hold.
            - **layers** (*tuple[int]*): The layers' numbers.

        Raises:
            ValueError: if the method propagates no relevance down the layers, such as Grad-SAM, LeGrad, attention
                evidence, and the recursions "forward" and "additive".
        """
        plan, follower = add_follower(self.plan, self.get_name())
        request = Request([target], additional_forward_args, internal_batch_size, contrast)
        (batches,) = self._explain(self._inputs(inputs), request, plan)
        flow = follower.flow([len(explanation.relevance) for explanation in batches]).to(batches[0].relevance.device)
        return relevance_flow(flow, batches[0], self.plan.start_layer)

    def attribute_future(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the call, as Captum's own gradient methods do."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _inputs(self, inputs: Tensor | tuple[Tensor, ...], *, takes_others: bool = False) -> Tensor:
        """Return the one tensor among the inputs, in a form that method and model take."""
        pixels = pixel_values(inputs, takes_others=takes_others)
        if pixels.dim() == IMAGE_DIMS and frame_count(self.model):
            raise ValueError(
                f"inputs must be videos (examples, frames, channels, height, width), as {type(self.model).__name__} "
                f"takes them, but got shape {tuple(pixels.shape)}."
            )
        return pixels

    def _explain(self, pixels: Tensor, request: Request, plan: Plan | None = None) -> list[list[Explanation]]:
        """Explain each target in batches; ``plan`` replaces the method's."""
        plan = plan or self.plan
        if plan.reads_target:  # else any will do
            request = request.checked(len(pixels))
        with torch.inference_mode(False), torch.enable_grad():
            explained_batches = [
                [explanation.to(pixels.device) for explanation in explained]
                for batch in request.batches(pixels)
                for explained in explain_in_halves(partial(self._explain_some, plan), *batch)
            ]
        if any(explanation.lacks_gradient for explained in explained_batches for explanation in explained):
            warnings.warn(NO_GRADIENT, stacklevel=_users_stack_level())
        return [list(batches) for batches in zip(*explained_batches, strict=True)]

    def _explain_some(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        """Explain each target, and add the target itself where the request chooses it by the logits."""
        if not callable(request.targets):
            return self._explain_batch(plan, pixels, request)
        choose, chosen = request.targets, list[Tensor]()

        def note_choice(logits: Tensor) -> Tensor:
            chosen.append(choose(logits))
            return chosen[-1]

        explained = self._explain_batch(plan, pixels, request._replace(targets=note_choice))
        return [e._replace(target=t) for e, t in zip(explained, chosen[-1].unbind(-1), strict=True)]

    def _explain_batch(self, plan: Plan, pixels: Tensor, request: Request) -> list[Explanation]:
        return explain_model(self.passes, self.model, Logits(self.forward_func), plan, pixels, request)


def _patch_relevance(batches: Sequence[Explanation]) -> Tensor:
    """Return the relevance (N, rows, columns) of all batches."""
    return torch.cat([explanation.patch_relevance for explanation in batches])


def _chosen_targets(batches: Sequence[Explanation]) -> Tensor:
    """Return the classes (N,) of all batches that were chosen by the logits."""
    return torch.cat([cast(Tensor, batch.target).expand(len(batch.relevance)) for batch in batches])


def _head_shares(batches: Sequence[Explanation]) -> Tensor:
    """Return shares (N, L, H), each layer summing to 1; zero for heads that a layer lacks."""
    return torch.cat([_layer_shares(batch.importance or ()) for batch in batches])


def _layer_shares(importance: Sequence[Tensor]) -> Tensor:
    most = max(heads.shape[-1] for heads in importance)
    if all(heads.shape[-1] == most for heads in importance):
        return head_weights(torch.stack(list(importance), 1))
    return torch.stack([nn.functional.pad(head_weights(h), (0, most - h.shape[-1])) for h in importance], 1)


def _users_stack_level() -> int:
    """Return how many frames above the caller the first one outside ours and Captum's code is."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("captum", "captum_gmar"):
        level, frame = level + 1, frame.f_back
    return level - 1
