"""Hooks of one thread."""

import threading

from torch import nn, ones

from captum_gmar.engine.hooks.threads import limit_to_thread


def test_a_hook_runs_in_its_own_thread_only():
    calls, layer = [], nn.Linear(2, 2)
    layer.register_forward_hook(limit_to_thread(lambda module, args, output: calls.append(threading.get_ident())))
    other = threading.Thread(target=lambda: layer(ones(2)))
    other.start()
    other.join()
    layer(ones(2))
    assert calls == [threading.get_ident()]
