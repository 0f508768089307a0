"""A script that `test_loading` starts in two processes: models spread over them are explained as one alone."""

import torch.distributed as dist
from test_loading import METHODS, assert_explained_as, make_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


def shard_fully(model):
    for layer in model.vit.layers:
        fully_shard(layer)
    return fully_shard(model)


def split_layers(model):
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.vit.layers:
        parallelize_module(layer.mlp, mesh, {"fc1": ColwiseParallel(), "fc2": RowwiseParallel()})
    return model


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for spread in (shard_fully, split_layers, nn.parallel.DistributedDataParallel):
        assert_explained_as(spread(make_model()), make_model(), methods=METHODS[::3])
        if not dist.get_rank():
            print(spread.__name__, "explained", flush=True)
    dist.destroy_process_group()
