"""Evidence for words against the formula in float64, with the model cut after each layer and dense attention."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from installed import HAS_TRANSFORMERS_5
from oracle import log_odds
from text_models import ANSWER, IMAGE_TOKEN, TEXT, TEXT_MODELS, VISION, pixels, prompt, text_model
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from captum_gmar import AnswerEvidence
from captum_gmar.vlm.decoder_pass import decoder_layers

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

PAGE = 45  # rows and columns of a page's image tokens
UNPLACED = {"mllama"}  # its layout depends on the picture's size


class WrittenOut(TorchFunctionMode):
    """Mode that computes attention densely and keeps the weights."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.attended = []  # weights times norms of values, summed over heads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return self.attend(*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        if func in (F.softmax, torch.softmax):
            self.kept.append(output if output.requires_grad else output.requires_grad_())
        return output

    def attend(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if key.shape[1] != query.shape[1]:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            boolean = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if boolean else scores + attn_mask
        weights = scores.softmax(-1)
        self.kept.append(weights if weights.requires_grad else weights.requires_grad_())
        self.attended.append((weights * value.norm(dim=-1)[..., None, :]).detach().flatten(0, -3).sum(0))
        return weights @ value


def with_answer(model, inputs, answer):
    """Return the model's inputs with an answer, independently of the library."""
    if model.config.is_encoder_decoder:
        return {**inputs, "decoder_input_ids": torch.tensor([[2, *answer[:-1]]])}
    extended = {**inputs, "input_ids": torch.cat([inputs["input_ids"], torch.tensor([answer[:-1]])], 1)}
    token_type = int(model.config.model_type == "paligemma")
    for name, value in {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": token_type}.items():
        if name in inputs:
            extended[name] = torch.cat([inputs[name], torch.full((1, len(answer) - 1), value)], 1)
    if "cross_attention_mask" in inputs:
        extended["cross_attention_mask"] = torch.ones(1, extended["input_ids"].shape[1], 1, 2, dtype=torch.long)
    return extended


def dense_evidence(model, inputs, answer, score=log_odds):
    """Compute evidence (W, S) of the decoder's and then the encoder's tokens, and scores (W,)."""
    layers, arguments = decoder_layers(model), with_answer(model, inputs, answer)
    tokens = encoded = 0
    for index, layer in enumerate(layers):
        first, mode = [], WrittenOut()
        skipped = [
            later.register_forward_hook(lambda _, args, out: args[0] if torch.is_tensor(out) else (args[0], *out[1:]))
            for later in layers[index + 1 :]
        ]
        begin = layer.register_forward_pre_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept)))
        end = layer.register_forward_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept)))
        with mode:
            logits = model(**arguments, use_cache=False).logits[0, -len(answer) :]
        for hook in (*skipped, begin, end):
            hook.remove()
        scores = torch.stack([score(logits)[row, token] for row, token in enumerate(answer)])
        for number, weights in enumerate(mode.kept[slice(*first)]):
            parts = []
            for row, value in enumerate(scores):
                (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
                parts.append((weights * gradient).flatten(0, -3)[:, row - len(answer)].sum(0).detach())
            if number or weights.shape[-1] != weights.shape[-2]:
                encoded = encoded + torch.stack(parts)
            else:
                tokens = tokens + torch.stack(parts)
    return [part for part in (tokens, encoded) if torch.is_tensor(part)], scores.detach()


def assert_evidence(result, dense, scores):
    parts = [part for part in (result.relevance, result.encoded_relevance) if part is not None]
    assert_close(torch.cat(parts, 1), dense / dense.abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    assert_close(result.scores, scores, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_every_word_s_evidence_is_that_of_the_formula(name):
    model, inputs = text_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    parts, scores = dense_evidence(model, inputs, ANSWER)
    assert_evidence(result, torch.cat(parts, 1), scores)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder_layers(model))
    assert (result.pictures is None) == (name in UNPLACED)


@pytest.mark.parametrize("name", ["llava", "qwen25_vl", "florence2"])
def test_focus_is_attention_and_value_norm_where_evidence_is_positive(name):
    model, inputs = text_model(name)
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    with WrittenOut() as mode:
        model(**with_answer(model, inputs, ANSWER), use_cache=False)
    picture = result.pictures[0]
    layers = len(decoder_layers(model))
    attended = mode.attended[-2 * layers :][1::2] if picture.is_encoded else mode.attended[-layers:]
    attended = sum(attended)[-len(ANSWER) :, picture.columns].flatten(1)
    positive = result.picture_relevance().flatten(1).clamp(min=0)
    expected = attended * (positive / positive.sum(1, keepdim=True).clamp(min=1e-300) + 1 / positive.shape[1])
    expected = expected / expected.sum(1, keepdim=True)
    assert_close(result.focus(), expected.view_as(result.picture_relevance()), rtol=1e-9, atol=1e-12)
    words = result.phrases([slice(0, 2)])
    assert_close(words.attended, result.attended[:2].sum(0, keepdim=True))
    assert_close(words.focus().sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("name", ["llava", "qwen25_vl", "gemma3", "paligemma", "mllama", "florence2", "git"])
def test_scores_are_those_with_which_the_model_generates(name):
    model, inputs = text_model(name)
    generated = model.generate(
        **inputs, do_sample=False, max_new_tokens=4, output_logits=True, return_dict_in_generate=True, eos_token_id=None
    )
    logits, answer = torch.cat(generated.logits), generated.sequences[0, -4:]
    result = AnswerEvidence(model).attribute(inputs, target=answer)
    expected = log_odds(logits)[range(4), answer]
    assert_close(result.scores, expected.double(), rtol=1e-5, atol=1e-5)


def test_what_a_model_does_to_logits_afterwards_counts():
    config = transformers.GraniteConfig(**TEXT, logits_scaling=0.5)
    torch.manual_seed(0)
    model, inputs = transformers.GraniteForCausalLM(config).double().eval(), {"input_ids": torch.tensor([[1, 5, 6]])}
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    (dense,), scores = dense_evidence(model, inputs, ANSWER)
    assert_evidence(result, dense, scores)


def test_logits_are_computed_in_chunks_of_layers():
    model, inputs = text_model("llama")
    rows = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: rows.append(output.shape[:-1].numel()))
    AnswerEvidence(model).attribute(inputs, target=ANSWER)
    hook.remove()
    assert rows == [1, 4, 4]  # one row of the model's own call, and the words' rows of each of two layers
    assert max(rows) <= inputs["input_ids"].shape[1] + len(ANSWER) - 1


def test_a_page_of_two_thousand_image_tokens():
    torch.manual_seed(0)
    one = {"num_hidden_layers": 1, "num_attention_heads": 1}
    text = transformers.LlamaConfig(**TEXT | one | {"num_key_value_heads": 1, "max_position_embeddings": PAGE**2 + 6})
    vision = transformers.CLIPVisionConfig(**VISION | one | {"image_size": 8 * PAGE})
    parts = {"text_config": text, "vision_config": vision, "image_token_index": IMAGE_TOKEN}
    model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**parts, vision_feature_layer=-1))
    inputs = {"input_ids": prompt(PAGE**2), "pixel_values": pixels(1, 3, 8 * PAGE, 8 * PAGE)}
    evidence = AnswerEvidence(model.double().eval())
    result = evidence.attribute(inputs, target=ANSWER)
    (tokens,), scores = dense_evidence(model, inputs, ANSWER)
    assert_evidence(result, tokens, scores)
    assert result.picture_relevance().shape == (len(ANSWER), PAGE, PAGE)
    assert len(evidence.attribute(inputs).tokens) <= 3  # as many as the model has positions for
    with pytest.raises(ValueError, match=r"inputs must fit the model's 2031 positions.* but got 2032 tokens"):
        evidence.attribute(inputs, target=[*ANSWER, 11])
