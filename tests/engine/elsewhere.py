"""A device for tests on machines that have none: its numbers lie in main memory, to torch it is another than the CPU.

As on a GPU, operations on tensors of two devices are an error (but for scalars of the CPU in elementwise operations,
and indices of the CPU), and backward runs in the device's own thread. As on some GPUs, there is no double precision.
Importing this makes torch know the device ``"elsewhere"``. Run as a script, it checks every method on it.
"""

import os
import sys
import threading
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "elsewhere"
aten = torch.ops.aten
BETWEEN_DEVICES = {aten.copy_, aten._to_copy, aten._copy_from}
INDEXING = {aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}
TAKING_SCALARS = {aten.where, aten.fill_, aten.masked_fill_}
MAKING = [aten.eye.default, aten.eye.m, aten.arange.default, aten.arange.start, aten.arange.start_step]
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select}
threads = set()  # in which operations ran
waits = Counter()  # what made the host wait for the device, by the line of the library


class Elsewhere(torch.Tensor):
    """A tensor of the device; ``here`` has its numbers."""

    is_cuda = True  # for code that asks whether it is on a GPU
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here):
        if here.dtype == torch.float64:
            raise TypeError(f"The device {NAME} has no float64.")
        options = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, here.shape, **options, device=f"{NAME}:0")

    def __init__(self, here):
        self.here = here

    def tolist(self):
        return self.here.tolist()

    def __deepcopy__(self, memo):
        return type(self)(self.here.clone())

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, *args, **(kwargs or {}))


def compute(func, *args, **kwargs):
    """The operation on the numbers in main memory, if a device would do it."""
    threads.add(threading.get_ident())
    if func.overloadpacket is aten._fused_sdp_choice:
        return 0  # attention by plain products
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    check_devices(func, args, tensors)
    count_waits(func, tensors, kwargs)
    device, wrappers = kwargs.get("device"), {id(t.here): t for t in tensors if isinstance(t, Elsewhere)}
    goes_there = bool(wrappers) if device is None else device.type == NAME
    arguments = tree_map_only((Elsewhere, torch.device), brought_here, (args, kwargs))
    result = func(*arguments[0], **arguments[1])

    def wrapped(tensor):
        return wrappers.get(id(tensor)) if id(tensor) in wrappers else Elsewhere(tensor) if goes_there else tensor

    return tree_map_only(torch.Tensor, wrapped, result)


def count_waits(func, tensors, kwargs):
    """The device's numbers are wanted here."""
    operation, there = func.overloadpacket, any(isinstance(tensor, Elsewhere) for tensor in tensors)
    leaves = operation is aten._to_copy and kwargs.get("device") is not None and kwargs["device"].type != NAME
    if there and (operation in WAITING or leaves):
        ours = [frame for frame in traceback.extract_stack() if "captum_gmar" in frame.filename]
        waits[" ".join([str(operation), *(f"{Path(f.filename).name}:{f.lineno}" for f in ours[-1:])])] += 1


def brought_here(value):
    return value.here if isinstance(value, Elsewhere) else torch.device("cpu")


def check_devices(func, args, tensors):
    operation, others = func.overloadpacket, [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
    if len(others) in (0, len(tensors)) or operation in BETWEEN_DEVICES:
        return
    if operation in INDEXING and isinstance(args[0], Elsewhere):
        return
    takes_scalars = operation in TAKING_SCALARS or torch.Tag.pointwise in func.tags
    writes_here = func._schema.is_mutable and not isinstance(args[0], Elsewhere)
    if not takes_scalars or writes_here or any(tensor.dim() for tensor in others):
        found = ", ".join(f"{tensor.device} {tuple(tensor.shape)}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {found}")


def register():
    backend = backend_registration._DummyBackendModule()
    backend.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend)
    library = torch.library.Library("_", "IMPL")
    library.fallback(compute, "PrivateUse1")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for operation in MAKING:  # which torch else makes empty, to be resized
        torch.library.impl(operation.name(), "PrivateUse1")(lambda *args, op=operation, **kw: compute(op, *args, **kw))

    @torch.library.impl("aten::_copy_from", "PrivateUse1")
    def copy_from(source, to, non_blocking=False):
        to.here.copy_(source.here if isinstance(source, Elsewhere) else source)
        return to

    return library  # what it registers goes with it


def split(model):
    """The model with all layers but the first on the device, as ``device_map`` spreads it."""
    from captum_gmar.engine.models.layers import transformer_layers

    first, second, *_ = transformer_layers(model)
    model.to(NAME)
    for name, module in model.named_modules():
        if module is first or "embeddings" in name.split(".")[-1]:
            module.to("cpu")

    def move(module, args, kwargs):
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(NAME), (args, kwargs))

    second.register_forward_pre_hook(move, with_kwargs=True)
    return model


def check(families, is_split):
    """What is wrong with methods of ours there, compared with their numbers on the CPU."""
    from families import make
    from methods import READERS, implemented

    from captum_gmar.attr.methods import get_method
    from captum_gmar.engine.kernels import workspace

    workspace.BLOCK_ELEMENTS = dict.fromkeys(workspace.BLOCK_ELEMENTS, 9 * 17 * 2)  # several blocks of small images
    workspace.MIN_BLOCK_ROWS = 2
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets, contrast = torch.tensor([[3, 4], [5, 6], [1, 2]]), torch.tensor([7, 8, 9])  # as a data loader gives them
    failures = []
    for family in families:
        (here, forward_here), (there, forward_there) = make(family), make(family)
        there, inputs = (split(there), images) if is_split else (there.to(NAME), images.to(NAME))
        for name in READERS:
            expected = get_method(name, here, forward_func=forward_here)
            method = get_method(name, there, forward_func=forward_there)
            correct = implemented(expected, "blocks").explain(images, targets, contrast=contrast).relevance
            for implementation in ("fused", "batched"):
                try:
                    waits.clear()
                    found = implemented(method, implementation).explain(inputs, targets, contrast=contrast).relevance
                    if not is_split:
                        assert sum(waits.values()) <= targets.shape[1], f"the host waits: {dict(waits)}"
                    assert found.device == inputs.device, f"it is on {found.device}"
                    torch.testing.assert_close(found.cpu(), correct, rtol=1e-4, atol=1e-8)
                except (AssertionError, RuntimeError, TypeError) as error:
                    failures.append(f"{family}, {name}, {implementation}: {type(error).__name__}: {str(error)[:300]}")
            if name in ("attention-evidence", "gmar-l1", "libra-attcat"):
                failures += [f"{family}, {name}: {fault}" for fault in faults_of_targets(method, inputs)]
    if len(threads) < 2:
        failures.append("backward ran in the caller's thread")
    return failures


def faults_of_targets(method, inputs):
    """What is wrong with the answers to targets that are there, and are refused once the host waits anyway."""
    for target, contrast, says in (
        ([0, 99, 1], None, "target must be from 0 to"),
        ([0, -1, 1], None, "target must be from 0 to"),
        ([0, 1, 2], [3, 3, 99], "contrast must be from 0 to"),
        ([0, 1, 2], [2, 1, 0], "contrast must be another class than the target, but got 1 for both"),
    ):
        there = [None if each is None else torch.tensor(each).to(NAME) for each in (target, contrast)]
        try:
            method.relevance(inputs, there[0], contrast=there[1])
        except ValueError as error:
            if says not in str(error):
                yield f"{target}, {contrast}: {error}"
        else:
            yield f"{target}, {contrast} are taken"


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    registered = register()
    print(*check(sys.argv[1:], is_split=False), *check(sys.argv[1:], is_split=True), sep="\n", flush=True)
    os._exit(0)  # at the interpreter's end, the device's thread now and then aborts it
