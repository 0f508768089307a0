"""Methods on another device than the CPU, on two of them, and on models whose weights come and go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import make
from methods import READERS
from torch import nn
from torch.testing import assert_close
from torch.utils import backend_registration

from captum_gmar.attr.catalogue import OURS
from captum_gmar.attr.methods import get_method
from captum_gmar.attr.token_gradients import TokenAttribution

TESTS = Path(__file__).resolve().parents[1]
NEEDED = "_setup_privateuseone_for_python_backend"


@pytest.mark.skipif(not hasattr(backend_registration, NEEDED), reason="this torch knows no devices written in Python")
@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("engine/elsewhere.py", ["ViT"]),
        ("calls_elsewhere.py", ["metrics", "captums", "heads", "evaluations", "commands"]),
    ],
)
def test_every_method_and_the_rest_of_the_library(script, parts):
    """Run the scripts in processes of their own, as torch takes one such device only."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, TESTS / script, *parts], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-2000:]


@pytest.mark.parametrize("name", OURS)
def test_a_default_device_that_is_not_the_models(vit, images, name):
    method, targets = get_method(name, vit), torch.tensor([3, 0, 9, 5])
    expected = method.attribute(images, targets)
    with torch.device("meta"):
        found = method.attribute(images, targets)
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("way", ["cpu_offload", "disk_offload"])
def test_offloaded_by_accelerate(make_vit, images, name, way, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    folder = {"offload_dir": str(tmp_path)} if way == "disk_offload" else {}
    model = getattr(accelerate, way)(make_vit(), execution_device="cpu", **folder)
    expected = get_method(name, make_vit()).relevance(images, 3)
    assert_close(get_method(name, model).relevance(images, 3), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
class TestGradientsThatAreCut:
    """torch gives quantised operations no gradient, so that it would be zero below them."""

    @staticmethod
    def quantised(model, part):
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        in_attention = [name for name in linear if "attention" in name]
        parts = {
            "mlp": [name for name in linear if name not in in_attention and "classifier" not in name],
            "what comes out of the last attention": in_attention[-1:],
            "the values of the last attention": in_attention[-2:-1],
        }
        return torch.ao.quantization.quantize_dynamic(model, set(parts[part]), dtype=torch.qint8)

    @pytest.mark.parametrize("name", READERS)
    @pytest.mark.parametrize("part", ["mlp", "what comes out of the last attention"])
    def test_no_method_draws_another_ones_map(self, vit, images, name, part):
        method = get_method(name, self.quantised(vit, part))
        if name.startswith("libra") or name == "token-evidence":  # it would balance it
            with pytest.raises(RuntimeError, match=r"Linear 'vit\..*' have none, .* dynamically quantised layers"):
                method.relevance(images, 3)
        elif method.plan.rule is None and not isinstance(method, TokenAttribution):
            assert method.relevance(images).isfinite().all()
        else:
            with pytest.raises(RuntimeError, match=r"operations have none, .* dynamically quantised layers"):
                method.relevance(images, 3)

    @pytest.mark.parametrize("name", ["gmar-l1", "gmar-forward", "gradient-rollout", "gmar++", "grad-sam"])
    def test_between_the_layers(self, vit, images, name):
        with pytest.raises(RuntimeError, match="operations have none"):
            get_method(name, self.quantised(vit, "the values of the last attention")).relevance(images, 3)


@pytest.mark.filterwarnings("ignore")  # of torch's own, on old ways and on the model's checks
class TestModelsWithoutCode:
    """Traced, scripted and exported: their attention's calls are compiled away."""

    def models(self):
        model, _ = make("timm-like, token")
        pixels = torch.randn(2, 3, 32, 32)
        yield torch.jit.trace(model, pixels)
        yield torch.jit.freeze(torch.jit.trace(model, pixels))
        yield torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(), nn.Linear(128, 3)).eval())
        exported = torch.export.export(model, (pixels,))
        yield exported.module()
        yield torch.export.unflatten(exported)

    def test_what_to_do_is_said(self):
        message = r"traced or exported\. Pass the model as it was"
        for model in self.models():
            for name in ("gmar-l1", "rollout", "legrad"):
                with pytest.raises(RuntimeError, match=message):
                    get_method(name, model).relevance(torch.randn(2, 3, 32, 32), 1)
