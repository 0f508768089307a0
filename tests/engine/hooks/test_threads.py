"""Hooks of one thread."""

import threading

from torch import nn, ones

from captum_gmar.engine.hooks.threads import hook_modules


def test_a_hook_runs_in_its_own_thread_only():
    calls, layer = [], nn.Linear(2, 2)

    def note(module, *_):
        calls.append((module, threading.get_ident()))

    with hook_modules([layer], enter=note, leave=note):
        other = threading.Thread(target=lambda: layer(ones(2)))
        other.start()
        other.join()
        layer(ones(2))
    layer(ones(2))
    assert calls == [(layer, threading.get_ident())] * 2
