"""Models as people load them: every method explains the loaded model as the same weights in a plain model.

Packages that are missing are skipped; ``docs/how-to/loading.md`` names the test behind each of its rows.
"""

import copy
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from installed import HAS_TRANSFORMERS_5
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import TokenEvidence
from captum_gmar.attr.methods import get_method

LAYERS = "layers" if HAS_TRANSFORMERS_5 else "encoder.layer"
METHODS = ["gmar-l1", "gmar++", "rollout", "token-evidence", "attention-evidence", "libra-fullgrad+", "legrad"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def make_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=32)).eval()


def relevance(method, model):
    return get_method(method, model).relevance(IMAGES, target=1)


def assert_explained_as(loaded, plain, tolerance=1e-6, methods=METHODS):
    before = {name: value.clone() for name, value in plain_tensors(loaded)}
    for method in methods:
        expected = relevance(method, plain)
        difference = (relevance(method, loaded) - expected).abs().max() / expected.abs().max()
        assert difference < tolerance, (method, difference)
    assert all(torch.equal(value, before[name]) for name, value in plain_tensors(loaded))


def plain_tensors(model):
    return [(name, value) for name, value in model.state_dict().items() if type(value) is torch.Tensor]


def with_weights(model, weight):
    """A plain model with the weights that ``weight`` returns for a name and module of ``model``, where it does."""
    plain = make_model()
    for name, module in model.named_modules():
        if (dense := weight(module)) is not None:
            plain.get_submodule(name).weight.data = dense.float()
    return plain


def swap_layers(make):
    """A model whose linear layers but the classifier are replaced."""
    model = make_model()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "classifier":
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(module))
    return model.eval()


def load_quantised(folder, **arguments):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    make_model().save_pretrained(folder)
    config = BitsAndBytesConfig(**arguments)
    model = ViTForImageClassification.from_pretrained(folder, quantization_config=config, device_map="cpu")
    return bitsandbytes, model.eval()


def test_bitsandbytes_4_bits(tmp_path):
    arguments = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    bitsandbytes, model = load_quantised(tmp_path, load_in_4bit=True, **arguments)

    def dense(module):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            return bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)

    assert_explained_as(model, with_weights(model, dense))


def test_bitsandbytes_packed_for_a_cpu(tmp_path):
    _, model = load_quantised(tmp_path, load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model.vit.layers[1].mlp.fc1.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(
        RuntimeError, match=r"^Linear4bit 'vit.layers.1.mlp.fc1' must pass a gradient, but bitsandbytes"
    ):
        relevance("gmar-l1", model)


def test_bitsandbytes_8_bits(tmp_path):
    """Activations are rounded as well, so the plain model differs by as much."""
    bitsandbytes, model = load_quantised(tmp_path, load_in_8bit=True)

    def dense(module):
        if isinstance(module, bitsandbytes.nn.Linear8bitLt):
            return module.weight.data * module.weight.SCB[:, None] / 127

    assert_explained_as(model, with_weights(model, dense), tolerance=0.02)


@pytest.mark.parametrize("bits", [4, 8])
def test_torchao_weights(bits):
    quantization = pytest.importorskip("torchao.quantization")
    model = make_model()
    if bits == 8:
        config = quantization.Int8WeightOnlyConfig()
    else:
        group = quantization.PerGroup(32)
        config = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=group)
    quantization.quantize_(model, config)

    def dense(module):
        return module.weight.dequantize() if isinstance(module, nn.Linear) else None

    assert_explained_as(model, with_weights(model, dense), tolerance=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_torchao_activations(method):
    quantization = pytest.importorskip("torchao.quantization")
    model = make_model()
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(RuntimeError, match=r"^Linear 'vit\.layers\.0.* must pass a gradient, but torchao has no"):
        relevance(method, model)


def test_hqq():
    quantize = pytest.importorskip("hqq.core.quantize")
    config = quantize.BaseQuantizeConfig(nbits=8, group_size=64)
    arguments = {"compute_dtype": torch.float32, "device": "cpu"}
    model = swap_layers(lambda layer: quantize.HQQLinear(copy.deepcopy(layer), config, **arguments))

    def dense(module):
        return module.dequantize() if isinstance(module, quantize.HQQLinear) else None

    assert_explained_as(model, with_weights(model, dense))


def test_quanto():
    quanto = pytest.importorskip("optimum.quanto")
    model = make_model()
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)

    def dense(module):
        return module.weight.dequantize() if isinstance(module, quanto.nn.QModuleMixin) else None

    assert_explained_as(model, with_weights(model, dense), tolerance=2e-6)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "rollout"])
def test_dynamic_int8(method):
    model = torch.ao.quantization.quantize_dynamic(make_model(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(RuntimeError, match=r"(operations|Linear 'vit\S*) have none, .* or use Att"):
        relevance(method, model)
    assert relevance("rollout", model).shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("file", "name", "tolerance"),
    [("torch", "TorchLinear", 1e-6), ("torch_awq", "AwqTorchLinear", 2e-3)],  # AWQ's computes in half precision
    ids=["gptq", "awq"],
)
def test_gptqmodel(file, name, tolerance):
    """The plain model has the weights that the kernel shows by what it returns for unit vectors."""
    pytest.importorskip("gptqmodel")
    kind = getattr(importlib.import_module(f"gptqmodel.nn_modules.qlinear.{file}"), name)

    def quantise(layer, bits=4, group=32):
        low, high = layer.weight.detach().unflatten(1, (-1, group)).aminmax(dim=-1)
        scales = (high - low) / (2**bits - 1)
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
        packed = kind(bits=bits, group_size=group, sym=False, desc_act=False, register_buffers=True, **sizes)
        pack = packed.pack_original if name == "TorchLinear" else packed.pack
        pack(layer, scales, torch.round(-low / scales), torch.arange(layer.in_features, dtype=torch.int32) // group)
        return packed.eval()

    def dense(module):
        if isinstance(module, kind):
            with torch.no_grad():
                return (module(torch.eye(module.in_features)) - module(torch.zeros(1, module.in_features))).T

    model = swap_layers(quantise)
    plain = with_weights(model, dense)
    for path, module in model.named_modules():
        if isinstance(module, kind):
            plain.get_submodule(path).bias.data = module.bias.float()
    assert_explained_as(model, plain, tolerance)


@pytest.mark.parametrize("method", ["gmar-l1", "token-evidence"])
def test_gptq_and_awq_kernels(method):
    """GPTQModel's kernels state by this attribute if they have a gradient. The stand-ins do as well."""

    class MarlinLinear(nn.Linear):
        SUPPORTS_TRAINING = False

    class TorchLinear(nn.Linear):
        SUPPORTS_TRAINING = True

    def make(kind):
        return swap_layers(lambda layer: kind(layer.in_features, layer.out_features))

    assert relevance(method, make(TorchLinear)).shape == (2, 4, 4)
    with pytest.raises(
        RuntimeError, match=r"^MarlinLinear 'vit\S*' must pass a gradient, but its kernel has none.*loading\.md"
    ):
        relevance(method, make(MarlinLinear))


def test_every_row_of_the_page_names_a_test():
    tests = Path(__file__).parent
    page = tests.parent / "docs" / "how-to" / "loading.md"
    if not page.exists():
        pytest.skip("the docs stand in a checkout")
    last = [row.split("|")[-2] for row in page.read_text().splitlines() if row.startswith("| ") and "---" not in row]
    names = [name for cell in last[1:] for name in re.findall("`(.+?)`", cell)]
    assert len(names) > 20
    assert all((tests / name).exists() if name.endswith(".py") else callable(globals()[name]) for name in names)


def test_half_a_model():
    model = make_model()
    model.vit.get_submodule(LAYERS)[1].to("meta")
    with pytest.raises(RuntimeError, match=r"^ViTForImageClassification must have all of its weights, but those of"):
        relevance("token-evidence", model)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_peft_lora():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
    adapted = peft.get_peft_model(make_model(), config).eval()
    assert (adapted(IMAGES).logits - make_model()(IMAGES).logits).abs().max() > 0.1
    assert_explained_as(adapted, copy.deepcopy(adapted).merge_and_unload().eval(), tolerance=5e-6)


def test_open_clip():
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.create_model("ViT-B-32", pretrained=None, force_image_size=64).eval()
    images = torch.randn(1, 3, 64, 64)
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, 3] = 49407
    text = model.encode_text(tokens, normalize=True).detach()
    score = TokenEvidence(model, forward_func=lambda pixels: model.encode_image(pixels, normalize=True) @ text.T)
    assert score.relevance(images, target=0).shape == (1, 2, 2)
    tower = model.visual

    def of_tower(pixels):
        return nn.functional.normalize(tower(pixels), dim=-1) @ text.T

    expected = TokenEvidence(tower, forward_func=of_tower).relevance(images, target=0)
    torch.testing.assert_close(score.relevance(images, target=0), expected)


def test_torchvision_swin():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.swin_t(weights=None, num_classes=5).eval()
    relevance = TokenEvidence(model).relevance(torch.randn(1, 3, 224, 224), target=1)
    assert relevance.shape == (1, 56, 56)


def test_lightning():
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = make_model()

        def forward(self, pixels):
            return self.network(pixels).logits

    assert_explained_as(Module().eval(), make_model())


@pytest.mark.parametrize("implementation", ["flex_attention", "flash_attention_2", "eager"])
def test_attention_implementations(implementation):
    model = make_model()
    model.config._attn_implementation = implementation  # as loaded where its package is
    assert_explained_as(model, make_model())
    assert model.config._attn_implementation == implementation


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_checkpointing():
    """What is switched on for training does nothing in evaluation mode."""
    model = make_model()
    model.gradient_checkpointing_enable()
    assert_explained_as(model, make_model())
    model.train()
    with pytest.raises(RuntimeError, match="without gradient checkpointing"):
        relevance("gmar-l1", model)


def test_data_parallel():
    assert_explained_as(nn.DataParallel(make_model()), make_model())


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a POSIX system")
@pytest.mark.skipif(not HAS_TRANSFORMERS_5, reason="the layers have other names before transformers 5")
def test_two_processes():
    """Fully sharded, tensor parallel and data parallel models, each in two processes."""
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    assert run.stdout.count("explained") == 3
