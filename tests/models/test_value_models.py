"""Which checkpoints give values, and what the others are told."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CohereConfig,
    CohereForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
)

import tiny
from freeprm.errors import ModelError
from freeprm.models.encoding import encode
from freeprm.models.loading import LoadOptions
from freeprm.models.values import Valuation, judgement_tokens, load_valued, score_values
from freeprm.types import Span

CPU = LoadOptions(device="cpu")
LINEAR = Valuation(parameterisation="linear", read_at="response")
TOKENS = Valuation(parameterisation="tokens", read_at="response", judgement=("+", "-"))


def saved(folder, model):
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def classifier(n_labels: int) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    return LlamaForSequenceClassification(LlamaConfig(**tiny.sizes(num_labels=n_labels)))


def test_a_language_model_gets_a_head_of_zeros_where_it_is_to_be_trained(tmp_path):
    backbone = load_valued(str(tiny.save(tmp_path)), LINEAR, CPU, fresh=True)
    assert type(backbone.model).__name__ == "LlamaForSequenceClassification"
    assert backbone.model.score.weight.tolist() == [[0.0] * 32]
    assert backbone.model.config.num_labels == 1
    theirs = tiny.language_model().model.state_dict()
    for name, weight in backbone.model.model.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], atol=0, rtol=0)


def test_a_head_that_is_there_is_kept(tmp_path):
    model = classifier(1)
    for fresh in (True, False):
        backbone = load_valued(saved(tmp_path, model), LINEAR, CPU, fresh=fresh)
        torch.testing.assert_close(backbone.model.score.weight, model.score.weight, atol=0, rtol=0)


def test_a_language_model_is_not_taken_for_one_with_a_head(tmp_path):
    with pytest.raises(ModelError, match=r"a LlamaForCausalLM without the head that values are read by \(score.weight"):
        load_valued(str(tiny.save(tmp_path)), LINEAR, CPU, fresh=False)


def test_a_classifier_whose_head_is_not_in_the_checkpoint_is_refused(tmp_path):
    folder = tiny.save(tmp_path)  # a language model's weights, under a classifier's name
    config = json.loads((folder / "config.json").read_text())
    named = {**config, "architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "right"}}
    (folder / "config.json").write_text(json.dumps(named))
    with pytest.raises(ModelError, match=r"lacks 1 weights, first score.weight"):
        load_valued(str(folder), LINEAR, CPU, fresh=True)


def test_a_classifier_of_other_labels_than_one_is_refused(tmp_path):
    with pytest.raises(ModelError, match="a LlamaForSequenceClassification of 3 labels; a value is one number"):
        load_valued(saved(tmp_path, classifier(3)), LINEAR, CPU, fresh=True)


def test_another_kind_of_model_is_refused(tmp_path):
    model = LlamaForTokenClassification(LlamaConfig(**tiny.sizes()))
    with pytest.raises(
        ModelError, match=r"a LlamaForTokenClassification; expected a \.\.\.ForSequenceClassification, or"
    ):
        load_valued(saved(tmp_path, model), LINEAR, CPU, fresh=True)
    with pytest.raises(ModelError, match="a LlamaForTokenClassification, not a causal language model"):
        load_valued(str(tmp_path), TOKENS, CPU)


def test_a_model_without_a_linear_classifier_is_refused_with_what_to_do(tmp_path):
    cohere = CohereForCausalLM(CohereConfig(**tiny.sizes()))
    with pytest.raises(ModelError, match=r"no \.\.\.ForSequenceClassification of cohere; use parameterisation=tokens"):
        load_valued(saved(tmp_path / "cohere", cohere), LINEAR, CPU, fresh=True)
    sizes = {name: size for name, size in tiny.sizes(num_labels=1).items() if name != "num_key_value_heads"}
    bert = BertForSequenceClassification(BertConfig(**sizes))
    with pytest.raises(ModelError, match=r"BertForSequenceClassification has no head score\.weight of one output"):
        load_valued(saved(tmp_path / "bert", bert), LINEAR, CPU, fresh=True)


@pytest.mark.parametrize(("valuation", "kind"), [(LINEAR, "SEQ_CLS"), (TOKENS, "CAUSAL_LM")], ids=["linear", "tokens"])
def test_adapters_bring_their_head_along(valuation, kind, tmp_path):
    base = str(tiny.save(tmp_path / "base"))
    adapted = get_peft_model(
        load_valued(base, valuation, CPU).model, LoraConfig(r=2, target_modules="all-linear", task_type=kind)
    )
    adapted.peft_config["default"].base_model_name_or_path = base
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    encoded = encode(tiny.tokenizer(), tiny.rollouts(1))
    places = [valuation.places([Span(0, item.n_response)]) for item in encoded]
    expected = score_values(adapted, encoded, places)
    assert torch.cat(expected).abs().min() > 0
    adapted.save_pretrained(tmp_path / "adapter")
    tiny.tokenizer().save_pretrained(tmp_path / "adapter")
    again = load_valued(str(tmp_path / "adapter"), valuation, CPU, fresh=False)
    torch.testing.assert_close(torch.cat(score_values(again.model, encoded, places)), torch.cat(expected))


def test_an_adapter_without_a_head_is_refused(tmp_path):
    base = str(tiny.save(tmp_path / "base"))
    adapted = get_peft_model(tiny.language_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = base
    folder = saved(tmp_path / "adapter", adapted)
    with pytest.raises(ModelError, match="without the head that values are read by"):
        load_valued(folder, LINEAR, CPU, fresh=False)


def test_a_judgement_is_two_tokens():
    tokenizer = tiny.tokenizer()
    assert judgement_tokens(tokenizer, ("+", "-")) == tuple(tokenizer.convert_tokens_to_ids(["+", "-"]))


@pytest.mark.parametrize(
    ("judgement", "message"),
    [
        (
            ("good", "-"),
            r"'good' splits into \['g', 'o', 'o', 'd'\], but a value is the difference of the logits of two",
        ),
        (("+", ""), r"'' splits into \[\]"),
        (("+", "+"), r"'\+' and '\+' are the same token"),
    ],
)
def test_a_judgement_that_is_not_two_tokens_is_refused(judgement, message):
    with pytest.raises(ModelError, match=message):
        judgement_tokens(tiny.tokenizer(), judgement)


def test_a_text_that_the_tokenizer_does_not_know_is_refused():
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "yes": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="'no' is unknown"):
        judgement_tokens(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]"), ("yes", "no"))


def test_a_real_tokenizer_has_the_usual_judgements(qwen_tokenizer):
    good, bad = judgement_tokens(qwen_tokenizer, ("+", "-"))
    assert qwen_tokenizer.convert_ids_to_tokens([good, bad]) == ["+", "-"]
