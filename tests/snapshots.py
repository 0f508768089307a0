"""What a pass must leave as it was."""


def state(model):
    """Everything of a model that a pass could leave changed."""
    return {
        "weights": {name: (id(p), p._version, p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "modules": [
            (m.training, sorted(vars(m)), list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
            for m in model.modules()
        ],
        "attention": model.config._attn_implementation,
    }
