"""Evidence for the words of a query against the formula in float64, with the model cut after each layer."""

import pytest
import torch
import transformers as tf
from installed import HAS_TRANSFORMERS_5
from text_models import IMAGE_TOKEN, QWEN_TEXT, QWEN_TOKENS, QWEN_VISION, TEXT, VISION, text_model
from torch.testing import assert_close

if not HAS_TRANSFORMERS_5:
    pytest.skip("RetrievalEvidence needs transformers 5 or newer", allow_module_level=True)

from captum_gmar.vlm.retrieval import RetrievalEvidence
from vlm.test_decoder_pass import WrittenOut

QUERY = {"input_ids": torch.tensor([[1, 20, 21, 22, 20, 30, 31, 2]])}


def colpali():
    vision, text = tf.SiglipVisionConfig(**VISION, projection_dim=16), tf.GemmaConfig(**TEXT, head_dim=4)
    sizes = {"image_token_index": IMAGE_TOKEN, "projection_dim": 16, "hidden_size": 16}
    inner = tf.PaliGemmaConfig(text_config=text, vision_config=vision, **sizes)
    return tf.ColPaliForRetrieval(tf.ColPaliConfig(vlm_config=inner, embedding_dim=8)), text_model("paligemma")[1]


def colqwen2():
    vision = {"embed_dim": 16, "mlp_ratio": 2, **QWEN_VISION}
    inner = tf.Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_TOKENS)
    inputs = dict(text_model("qwen2_vl")[1])
    inputs["pixel_values"] = inputs["pixel_values"][None]  # the processor pads pages to one length
    return tf.ColQwen2ForRetrieval(tf.ColQwen2Config(vlm_config=inner, embedding_dim=8)), inputs


def colmodernvbert():
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    text = tf.ModernBertConfig(**{name: TEXT[name] for name in names}, **special)
    inner = tf.ModernVBertConfig(
        text_config=text,
        vision_config=tf.SiglipVisionConfig(**VISION),
        image_token_id=IMAGE_TOKEN,
        pixel_shuffle_factor=2,
    )
    model = tf.ColModernVBertForRetrieval(tf.ColModernVBertConfig(vlm_config=inner, embedding_dim=8))
    return model, text_model("smolvlm")[1]


MODELS = {"colpali": ((4, 4), colpali), "colqwen2": ((2, 3), colqwen2), "colmodernvbert": ((4, 6), colmodernvbert)}


def dense_evidence(model, layers, page, queries):
    """Compute evidence (W, S) of each query's best token, layer by layer."""
    total = 0
    best = (queries @ model(**page).embeddings[0].mT).argmax(1)
    for index, layer in enumerate(layers):
        first, mode = [], WrittenOut()
        hooks = [
            later.register_forward_hook(lambda _, args, out: args[0] if torch.is_tensor(out) else (args[0], *out[1:]))
            for later in layers[index + 1 :]
        ]
        hooks.append(layer.register_forward_pre_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept))))
        hooks.append(layer.register_forward_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept))))
        with mode:
            found = model(**page).embeddings[0]
        for hook in hooks:
            hook.remove()
        (weights,) = mode.kept[slice(*first)]
        rows = []
        for word, row in enumerate(best.tolist()):
            (gradient,) = torch.autograd.grad(queries[word] @ found[row], weights, retain_graph=True)
            rows.append((weights * gradient).flatten(0, -3)[:, row].sum(0).detach())
        total = total + torch.stack(rows)
    return total


@pytest.mark.parametrize("name", MODELS)
def test_a_query_s_evidence_is_that_of_the_formula(name):
    torch.manual_seed(0)
    grid, build = MODELS[name]
    model, page = build()
    model = model.double().eval()
    result = RetrievalEvidence(model).attribute(page, QUERY)
    with torch.no_grad():
        queries, tokens = model(**QUERY).embeddings[0], model(**page).embeddings[0]
    similarities = queries @ tokens.mT
    assert len(set(similarities.argmax(1).tolist())) < len(queries)  # words that share their best token
    dense = dense_evidence(model, RetrievalEvidence(model).layers, page, queries)
    assert_close(result.relevance, dense / dense.abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    assert_close(result.totals, dense.abs().sum(1))
    assert_close(result.scores, similarities.amax(1))
    assert_close(result.similarities, similarities)
    positions = result.pictures[0].columns
    assert result.similarity().shape == result.picture_relevance().shape == (len(queries), *grid)
    assert torch.equal(result.similarity(), similarities[:, positions])
    whole = result.phrases([slice(0, None)])
    assert_close(whole.scores, similarities.amax(1).sum()[None])  # the score by which pages are ranked
    assert_close(whole.relevance[0] * whole.totals, dense.sum(0))
    assert_close(whole.similarities[0], similarities.sum(0))
    assert_close(sum(result.shares().values()), torch.ones(len(queries)).double())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_retrieved_is_refused():
    with pytest.raises(
        ValueError, match="model must embed pages and queries, as ColPaliForRetrieval does, but got Llam"
    ):
        RetrievalEvidence(text_model("llama")[0])
    model, page = colpali()
    with pytest.raises(ValueError, match="processor must be the model's own, where page or query are not its output"):
        RetrievalEvidence(model).attribute(page, "a query")
