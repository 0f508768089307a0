"""Every import of Captum's private helpers, so that a change of theirs concerns one file."""

from captum._utils.common import ExpansionTypes as ExpansionTypes
from captum._utils.common import _expand_additional_forward_args as _expand_additional_forward_args
from captum._utils.common import _expand_target as _expand_target
from captum._utils.common import _format_additional_forward_args as _format_additional_forward_args
from captum._utils.common import _format_output as _format_output
from captum._utils.common import _format_tensor_into_tuples as _format_tensor_into_tuples
from captum._utils.common import _is_tuple as _is_tuple
from captum._utils.common import _run_forward as _run_forward
from captum._utils.common import _select_targets as _select_targets
from captum._utils.common import _validate_target as _validate_target
from captum._utils.typing import TargetType as TargetType
from captum.attr._utils.attribution import Attribution as Attribution
from captum.attr._utils.batching import _tuple_splice_range as _tuple_splice_range
from captum.log import log_usage as log_usage
