"""Every import of Captum's private helpers, so that a change of theirs concerns one file."""

from captum._utils.common import (
    ExpansionTypes,
    _expand_additional_forward_args,
    _expand_target,
    _format_additional_forward_args,
    _format_output,
    _format_tensor_into_tuples,
    _is_tuple,
    _run_forward,
    _select_targets,
    _validate_target,
)
from captum._utils.typing import TargetType
from captum.attr._utils.attribution import Attribution
from captum.attr._utils.batching import _tuple_splice_range
from captum.log import log_usage

__all__ = [
    "Attribution",
    "ExpansionTypes",
    "TargetType",
    "_expand_additional_forward_args",
    "_expand_target",
    "_format_additional_forward_args",
    "_format_output",
    "_format_tensor_into_tuples",
    "_is_tuple",
    "_run_forward",
    "_select_targets",
    "_tuple_splice_range",
    "_validate_target",
    "log_usage",
]
