"""What fed each word, against the formula in float64: the model cut after each layer, all attention written out."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from installed import HAS_TRANSFORMERS_5
from oracle import log_odds
from PIL import Image
from text_models import ANSWER, TEXT, TEXT_MODELS, text_model
from torch.overrides import TorchFunctionMode
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import AnswerEvidence
from captum_gmar.vlm.decoder_pass import decoder_layers

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

from answering import build_processor, photo

UNPLACED = {"mllama"}  # whose places are told by the size of the picture


class WrittenOut(TorchFunctionMode):
    """Within the block, every attention is written out and its weights are kept."""

    def __init__(self):
        super().__init__()
        self.kept = []

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
        return weights @ value


def with_answer(model, inputs, answer):
    """What the model is called with, written apart from the library."""
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
    """(W, S), of the decoder's own tokens and then the encoder's, and scores (W,)."""
    layers, arguments = decoder_layers(model), with_answer(model, inputs, answer)
    tokens = encoded = 0
    for number, layer in enumerate(layers):
        first, mode = [], WrittenOut()
        skipped = [
            later.register_forward_hook(lambda _, args, out: args[0] if torch.is_tensor(out) else (args[0], *out[1:]))
            for later in layers[number + 1 :]
        ]
        met = layer.register_forward_pre_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept)))
        end = layer.register_forward_hook(lambda *_, first=first, mode=mode: first.append(len(mode.kept)))
        with mode:
            logits = model(**arguments, use_cache=False).logits[0, -len(answer) :]
        for hook in (*skipped, met, end):
            hook.remove()
        scores = torch.stack([score(logits)[row, token] for row, token in enumerate(answer)])
        for place, weights in enumerate(mode.kept[slice(*first)]):
            parts = []
            for row, value in enumerate(scores):
                (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
                parts.append((weights * gradient).flatten(0, -3)[:, row - len(answer)].sum(0).detach())
            if place or weights.shape[-1] != weights.shape[-2]:
                encoded = encoded + torch.stack(parts)
            else:
                tokens = tokens + torch.stack(parts)
    return [part for part in (tokens, encoded) if torch.is_tensor(part)], scores.detach()


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_every_word_s_evidence_is_that_of_the_formula(name):
    model, inputs = text_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    parts, scores = dense_evidence(model, inputs, ANSWER)
    dense = torch.cat(parts, 1)
    together = [part for part in (result.relevance, result.encoded_relevance) if part is not None]
    torch.testing.assert_close(torch.cat(together, 1), dense / dense.abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.scores, scores, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder_layers(model))
    assert (result.pictures is None) == (name in UNPLACED)


@pytest.mark.parametrize("name", ["llava", "qwen25_vl", "gemma3", "paligemma", "mllama", "florence2", "git"])
def test_scores_are_those_with_which_the_model_generates(name):
    model, inputs = text_model(name)
    generated = model.generate(
        **inputs, do_sample=False, max_new_tokens=4, output_logits=True, return_dict_in_generate=True, eos_token_id=None
    )
    logits, answer = torch.cat(generated.logits), generated.sequences[0, -4:]
    result = AnswerEvidence(model).attribute(inputs, target=answer)
    expected = log_odds(logits)[range(4), answer]
    torch.testing.assert_close(result.scores, expected.double(), rtol=1e-5, atol=1e-5)


def test_what_a_model_does_to_logits_afterwards_counts():
    config = transformers.GraniteConfig(**TEXT, logits_scaling=0.5)
    torch.manual_seed(0)
    model, inputs = transformers.GraniteForCausalLM(config).double().eval(), {"input_ids": torch.tensor([[1, 5, 6]])}
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    (dense,), scores = dense_evidence(model, inputs, ANSWER)
    torch.testing.assert_close(result.relevance, dense / dense.abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.scores, scores, rtol=1e-9, atol=1e-12)


def test_logits_of_all_layers_are_never_there_together():
    model, inputs = text_model("llama")
    read = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: read.append(output.shape[:-1].numel()))
    AnswerEvidence(model).attribute(inputs, target=ANSWER)
    hook.remove()
    length = inputs["input_ids"].shape[1] + len(ANSWER) - 1
    assert read == [1, 4, 4]  # one row by the model itself, and the words' rows of each of two layers
    assert max(read) <= length


def test_words_one_by_one_are_what_they_are_together():
    model, inputs = text_model("qwen2_vl")
    explain = AnswerEvidence(model).attribute
    together = explain(inputs, target=ANSWER)
    for number in range(1, len(ANSWER)):
        alone = explain(inputs, target=ANSWER[: number + 1])
        length = alone.relevance.shape[1]
        torch.testing.assert_close(alone.relevance[-1], together.relevance[number, :length])
        assert together.relevance[number, length:].abs().max() == 0 if length < together.relevance.shape[1] else True


def test_contrast_is_the_difference_of_the_two_words():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER, contrast=[3])

    def margins(logits):
        return logits - logits[:, [3]]

    parts, scores = dense_evidence(model, inputs, ANSWER, margins)
    torch.testing.assert_close(result.relevance, parts[0] / parts[0].abs().sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.scores, scores)


def test_an_answer_is_generated_where_none_is_given():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model).attribute(inputs, gen_args={"max_new_tokens": 3})
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=3)[0, -3:].tolist()
    assert result.tokens == tuple(map(str, expected))


class Letters:
    """A tokenizer of letters, in which "a" is 10."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) - 87 for letter in text]}

    def decode(self, ids):
        return "".join(chr(number + 87) for number in ids)


def test_answers_of_text_are_cut_by_the_tokenizer():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model, Letters()).attribute(inputs, target="cab", contrast="d")
    assert result.tokens == ("c", "a", "b")
    by_ids = AnswerEvidence(model).attribute(inputs, target=[12, 10, 11], contrast=[13])
    torch.testing.assert_close(result.relevance, by_ids.relevance)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({}, {"target": []}, "target must be at least one token of the model's 99"),
        ({}, {"target": [99]}, "target must be at least one token of the model's 99"),
        ({}, {"target": "cab"}, "target must be token ids where there is no processor"),
        ({}, {"target": [3, 4], "contrast": [3, 4, 5]}, "contrast must be one token, or as many as the target's 2"),
        ({"input_ids": torch.ones(2, 3).long()}, {"target": [3]}, "inputs must be of one example"),
        ({"input_ids": torch.tensor([[1, *[90] * 32, 90]])}, {"target": [3]}, "[Ii]mage"),
        ({"input_ids": None}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers. Got None"),
        ({"input_ids": [[1, 5]]}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers"),
        ({"input_ids": torch.ones(1, 3)}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers"),
        ({"input_ids": torch.tensor([[1, -5, 99]])}, {"target": [3]}, r"tokens of the model. Got \[-5, 99\] among"),
        (
            {"attention_mask": torch.ones(1, 3)},
            {"target": [3]},
            r"attention_mask must have the shape of input_ids, \(1",
        ),
        ({}, {"target": 3}, "target must be text or token ids. Got 3 instead"),
        ({}, {"target": b"ab"}, "target must be text or token ids"),
        ({}, {"target": [True]}, "target must be at least one token of the model's 99"),
        ({}, {"target": [3, 4], "contrast": [3, 4]}, r"contrast must be another answer than the target. Got \[3, 4\]"),
        ({}, {"target": [3, 3], "contrast": [3]}, "contrast must be another answer than the target"),
        ({}, {"gen_args": "greedy"}, "gen_args must be a mapping of arguments of generate. Got 'greedy' instead"),
    ],
)
def test_bad_input_is_answered_by_what_to_do(inputs, options, message):
    model, good = text_model("llava")
    with pytest.raises((TypeError, ValueError), match=message):
        AnswerEvidence(model).attribute({**good, **inputs}, **options)


def test_words_that_the_tokenizer_does_not_know_are_refused():
    evidence = AnswerEvidence(text_model("llava")[0], build_processor())
    for answers, name in (({"target": "€€"}, "target"), ({"target": "ab", "contrast": "€"}, "contrast")):
        with pytest.raises(
            ValueError, match=f"{name} must have a token that the tokenizer knows. Got '€+', of unknown"
        ):
            evidence.attribute("what?", **answers, images=photo())


def test_pictures_have_pixels_and_a_number():
    evidence = AnswerEvidence(text_model("llava")[0], build_processor())
    with pytest.raises(ValueError, match=r"images must have pixels\. Got sizes \[\(9, 0\)\] instead\."):
        evidence.attribute("what?", "a", images=Image.new("RGB", (0, 9)))
    for picture in (-1, 1, "a"):
        with pytest.raises(
            IndexError, match=rf"picture must be below the number of pictures, 1\. Got {picture!r} inst"
        ):
            evidence.attribute("what?", "a", images=photo()).picture_relevance(picture)


def test_a_model_that_generates_nothing_is_refused():
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="model must be one of transformers that generates text"):
        AnswerEvidence(ViTForImageClassification(config))
