"""Evidence for labels and answers of LayoutLMv3 against the formula in float64, with the model cut after each layer."""

import pytest
import torch
import transformers as tf
from installed import HAS_TRANSFORMERS_5
from text_models import text_model
from torch.testing import assert_close

if not HAS_TRANSFORMERS_5:
    pytest.skip("DocumentEvidence needs transformers 5 or newer", allow_module_level=True)

from captum_gmar.attr.scores import log_odds
from captum_gmar.vlm.documents import DocumentEvidence
from vlm.test_decoder_pass import WrittenOut

CLASSES = {
    "tokens": tf.LayoutLMv3ForTokenClassification,
    "page": tf.LayoutLMv3ForSequenceClassification,
    "answer": tf.LayoutLMv3ForQuestionAnswering,
}
BOXES = [[0, 0, 0, 0], [10, 260, 100, 480], [600, 510, 900, 700], [600, 510, 900, 700], [0, 0, 0, 0]]
PATCHES = {1: 4, 2: 11, 3: 11}  # of words on a grid of 4 × 4


def layoutlm(name):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"coordinate_size": 3, "shape_size": 2, "input_size": 32, "patch_size": 8, "vocab_size": 50}
    config = tf.LayoutLMv3Config(**sizes, max_position_embeddings=40, num_labels=2 if name == "answer" else 3)
    model = CLASSES[name](config).double().eval()
    for parameter in model.parameters():  # biases and the relative positions have no small values
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 7, 2]]), "bbox": torch.tensor([BOXES])}
    return model, {**inputs, "pixel_values": torch.rand(1, 3, 32, 32).double()}


def scores_of(name, model, inputs):
    """Return the rows and scores that the model explains by itself."""
    output = model(**inputs)
    if name == "answer":
        rows = [int(logits[0, :5].argmax()) for logits in (output.start_logits, output.end_logits)]
        return rows, [output.start_logits[0, rows[0]], output.end_logits[0, rows[1]]]
    logits = output.logits.view(-1, 3)
    return list(range(len(logits))), log_odds(logits)


def dense_evidence(name, model, inputs, labels):
    """Compute evidence (W, S), layer by layer."""
    layers, total = model.layoutlmv3.encoder.layer, 0
    rows, _ = scores_of(name, model, inputs)
    for index, layer in enumerate(layers):
        first, mode = [], WrittenOut()
        hooks = [later.register_forward_hook(lambda _, args, out: args[0]) for later in layers[index + 1 :]]
        hooks.append(layer.register_forward_pre_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept))))
        with mode:
            output = model(**inputs)
        for hook in hooks:
            hook.remove()
        weights, parts = mode.kept[first[0]], []
        for word, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if name == "answer":
                score = (output.start_logits, output.end_logits)[word][0, row]
            else:
                score = log_odds(output.logits.view(-1, 3))[row, label]
            (gradient,) = torch.autograd.grad(score, weights, retain_graph=True)
            parts.append((weights * gradient).flatten(0, -3)[:, row].sum(0).detach())
        total = total + torch.stack(parts)
    return total


@pytest.mark.parametrize("name", CLASSES)
def test_evidence_is_that_of_the_formula(name):
    model, inputs = layoutlm(name)
    rows, scores = scores_of(name, model, inputs)
    labels = rows if name == "answer" else scores.argmax(1).tolist()
    expected = torch.stack(scores) if name == "answer" else scores[rows, labels]
    dense = dense_evidence(name, model, inputs, labels)
    result = DocumentEvidence(model).attribute(inputs)
    assert_close(result.scores, expected.detach())
    assert_close(result.totals, dense.abs().sum(1))
    assert_close(result.relevance, dense / dense.abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    assert result.tokens == tuple(str(int(inputs["input_ids"][0, row])) for row in rows)
    grid = result.relevance[:, 6:].clone()  # patches after five tokens of text and one of the whole picture
    for word, patch in PATCHES.items():
        grid[:, patch] += result.relevance[:, word]
    assert_close(result.picture_relevance(), grid.view(-1, 4, 4))
    assert_close(DocumentEvidence(model).attribute(inputs, labels).relevance, result.relevance)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_explained_is_refused():
    with pytest.raises(ValueError, match="model must be a LayoutLMv3 with a head, but got LlamaForCausalLM"):
        DocumentEvidence(text_model("llama")[0])
    model, inputs = layoutlm("page")
    for target in ([3], [0, 1]):
        with pytest.raises(ValueError, match="target must be 1 numbers below 3, but got"):
            DocumentEvidence(model).attribute(inputs, target)
