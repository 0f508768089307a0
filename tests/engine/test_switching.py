"""What is switched for a pass comes back, whoever else switches it meanwhile."""

import threading

import pytest
import torch
from transformers import ViTForImageClassification

from captum_gmar import GMARAttribution, record_attention
from captum_gmar.engine.switching import attention_implementation, uncompiled


def test_attention_implementation_of_a_shared_config(make_vit):
    model = make_vit(attn_implementation="eager")
    other = ViTForImageClassification(model.config)
    with attention_implementation(model, "sdpa"):
        with attention_implementation(other, "sdpa"):
            assert model.config._attn_implementation == "sdpa"
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == other.config._attn_implementation == "eager"


def test_passes_that_want_different_attention_wait_for_each_other(make_vit):
    model, log = make_vit(attn_implementation="eager"), []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with attention_implementation(model, "sdpa"):
            inside.set()
            leave.wait(10)
            log.append(("first", model.config._attn_implementation))

    def second():
        with attention_implementation(model, "eager"):
            log.append(("second", model.config._attn_implementation))

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(10)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert log == [("first", "sdpa"), ("second", "eager")]
    assert model.config._attn_implementation == "eager"


def test_attention_implementation_after_an_error(make_vit):
    model = make_vit(attn_implementation="eager")
    with pytest.raises(ZeroDivisionError), attention_implementation(model, "sdpa"):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "eager"
    with attention_implementation(model, "sdpa"):
        assert model.config._attn_implementation == "sdpa"


def test_an_implementation_of_the_user_s_own_is_left_alone(make_vit):
    model = make_vit()
    model.config._attn_implementation_internal = "mine"
    with attention_implementation(model, "sdpa"):
        assert model.config._attn_implementation == "mine"


def is_compiled() -> bool:
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    torch.compile(lambda x: x.sin(), backend=backend, dynamic=False)(torch.ones(2))
    return bool(calls)


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_uncompiled_however_passes_overlap():
    assert is_compiled()
    first, second = uncompiled(), uncompiled()
    first.__enter__()
    assert not is_compiled()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not is_compiled()
    second.__exit__(None, None, None)
    assert is_compiled()
    with pytest.raises(ZeroDivisionError), uncompiled():
        raise ZeroDivisionError
    assert is_compiled()


def test_one_pass_within_another(vit, images):
    """A pass must not wait for itself; of the same implementation it need not wait at all."""

    def recording(inputs):
        record_attention(vit, inputs, 3)
        return vit(inputs).logits

    with pytest.raises(RuntimeError, match="no pass with eager attention while one with sdpa attention"):
        GMARAttribution(vit, forward_func=recording).attribute(images, 3)
    assert vit.config._attn_implementation == "sdpa"
    with attention_implementation(vit, "eager"), attention_implementation(vit, "eager"):
        assert vit.config._attn_implementation == "eager"
    assert vit.config._attn_implementation == "sdpa"
