"""Values are those of the plain models of transformers, whatever shares a batch, and trained where they are read."""

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
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
from freeprm.errors import ConfigError, DataError, ModelError, NonFiniteError
from freeprm.models.encoding import Encoded, encode
from freeprm.models.loading import Backbone, LoadOptions
from freeprm.models.packed_forward import is_patched, patch_forward
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.models.routes import prepare
from freeprm.models.values import Valuation, judgement_tokens, load_valued, score_values, token_values, valuation_of
from freeprm.types import Span
from rounding import assert_near, near

CPU = LoadOptions(device="cpu")
LINEAR = Valuation(parameterisation="linear", read_at="response")
TOKENS = Valuation(parameterisation="tokens", read_at="response", judgement=("+", "-"))
EVERYTHING = 10_000
VALUATIONS = {
    "linear": Valuation(parameterisation="linear", read_at="steps"),
    "tokens": Valuation(parameterisation="tokens", read_at="steps", judgement=("+", "-")),
}


@pytest.fixture(scope="module")
def encoded() -> list[Encoded]:
    """Twelve responses of unequal length to three prompts of unequal length."""
    return encode(tiny.tokenizer(), tiny.rollouts(3))


@pytest.fixture(scope="module")
def places(encoded) -> list[np.ndarray]:
    """Some tokens of each response, its first and last among them."""
    return [np.array([0, item.n_response // 2, item.n_response - 1]) for item in encoded]


@pytest.fixture(scope="module")
def valued(tmp_path_factory):
    """Models that give values, by architecture and parameterisation; with a head that has learnt something."""

    @cache
    def made(architecture: str, parameterisation: str) -> Backbone:
        folder = tiny.save(tmp_path_factory.mktemp("model"), architecture=architecture)
        backbone = load_valued(str(folder), VALUATIONS[parameterisation], CPU)
        if parameterisation == "linear":
            with torch.no_grad():
                backbone.model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
        return backbone

    def fresh(architecture: str = "llama", parameterisation: str = "linear") -> nn.Module:
        return copy.deepcopy(made(architecture, parameterisation)).model

    return fresh


def everywhere(batch: list[Encoded]) -> list[np.ndarray]:
    return [np.arange(item.n_response) for item in batch]


def plainly(model: nn.Module, item: Encoded, place: int) -> torch.Tensor:
    """() by the plain forward of a row that ends there: a classifier's pooled logit, or two logits' difference."""
    ids = torch.tensor(item.ids[: item.n_prompt + place + 1].tolist())[None]
    logits = type(model).forward(model, input_ids=ids).logits
    if logits.dim() == 2:
        return logits[0, 0]
    good, bad = tiny.tokenizer().convert_tokens_to_ids(["+", "-"])
    return logits[0, -1, good] - logits[0, -1, bad]


@pytest.mark.parametrize("parameterisation", VALUATIONS)
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_values_are_those_of_the_plain_model(architecture, parameterisation, valued, encoded, places):
    model = valued(architecture, parameterisation)
    expected = [
        torch.stack([plainly(model, *pair) for pair in zip([item] * 3, at, strict=True)])
        for item, at in zip(encoded, places, strict=True)
    ]
    found = score_values(model, encoded, places, token_budget=200)
    assert is_patched(model)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert_near(one, other)


@pytest.mark.parametrize("parameterisation", VALUATIONS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_model_that_reads_no_packed_rows_gives_the_same_values(
    architecture, parameterisation, valued, encoded, places
):
    packed, padded = valued(architecture, parameterisation), valued(architecture, parameterisation)
    assert not patch_forward(padded, examine=lambda model: False)
    assert_near(token_values(padded, encoded, places), token_values(packed, encoded, places))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_an_untrained_linear_model_says_exactly_zero_everywhere(architecture, tmp_path, encoded):
    folder = tiny.save(tmp_path, architecture=architecture)
    model = load_valued(str(folder), VALUATIONS["linear"], CPU).model
    assert torch.cat(score_values(model, encoded, everywhere(encoded))).eq(0).all()


@pytest.mark.parametrize("parameterisation", VALUATIONS)
def test_a_value_depends_on_nothing_after_it(parameterisation, valued, encoded):
    model = valued("llama", parameterisation)
    whole = score_values(model, encoded, everywhere(encoded))
    for item, values in zip(encoded, whole, strict=True):
        cut = item.n_response // 2
        part = replace(item, ids=item.ids[: item.n_prompt + cut], offsets=item.offsets[:cut])
        other = replace(item, ids=np.append(part.ids, [7, 8, 9]).astype(np.int32))
        assert_near(score_values(model, [part], everywhere([part]))[0], values[:cut])
        assert_near(score_values(model, [other], [np.arange(cut)])[0], values[:cut])


@pytest.mark.parametrize("parameterisation", VALUATIONS)
@pytest.mark.parametrize("architecture", ["llama", "mistral, sliding window"])
def test_batch_size_order_and_padding_change_nothing(architecture, parameterisation, valued, encoded, places):
    model, padded = valued(architecture, parameterisation), valued(architecture, parameterisation)
    patch_forward(padded, examine=lambda model: False)
    expected = score_values(model, encoded, places, token_budget=1)
    for way in (model, padded):
        together = score_values(way, encoded, places, token_budget=EVERYTHING)
        backwards = score_values(way, encoded[::-1], places[::-1], token_budget=300)[::-1]
        for one, two, three in zip(expected, together, backwards, strict=True):
            assert_near(two, one)
            assert_near(three, one)


def test_sharing_a_long_beginning_changes_nothing(valued, encoded):
    model = valued()
    long = np.arange(20, 70, dtype=np.int32)  # more than what is shared at least
    batch = [replace(encoded[0], ids=np.append(long, [3, end, 5]).astype(np.int32), n_prompt=40) for end in (9, 10)]
    together = score_values(model, batch, [np.arange(13)] * 2, token_budget=EVERYTHING)
    for item, values in zip(batch, together, strict=True):
        assert_near(values, score_values(model, [item], [np.arange(13)])[0])
    torch.testing.assert_close(together[0][:11], together[1][:11], atol=0, rtol=0)  # read once


def test_the_same_response_may_be_asked_for_at_other_places(valued, encoded):
    model = valued()
    told: list[tuple[int, int]] = []
    again = [encoded[0], encoded[1], encoded[0], encoded[0]]
    at = [np.array([4, 2]), np.array([1]), np.array([2, 2, 7]), np.array([], dtype=int)]
    found = score_values(model, again, at, advance=lambda *done: told.append(done))
    assert [done[1] for done in told] == [2]
    all_of = score_values(model, encoded[:2], everywhere(encoded[:2]))
    for values, of, where in zip(found, [0, 1, 0, 0], at, strict=True):
        assert_near(values, all_of[of][where])
    assert_near(token_values(model, again, at).detach(), torch.cat(found))


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("parameterisation", VALUATIONS)
@pytest.mark.parametrize("architecture", ["llama", "llama tied", "gemma2"])
def test_gradients_are_those_of_the_plain_model(architecture, parameterisation, patched, valued, encoded, places):
    model, plain = valued(architecture, parameterisation), valued(architecture, parameterisation)
    if not patched:
        patch_forward(model, examine=lambda model: False)
    batch, at = [*encoded[:3], encoded[0]], [*places[:3], places[1][1:2]]  # one response twice, at other places
    weights = torch.linspace(-1.0, 1.0, sum(map(len, at)))
    (token_values(model, batch, at) @ weights).backward()
    one_by_one = [plainly(plain, item, place) for item, where in zip(batch, at, strict=True) for place in where]
    (torch.stack(one_by_one) @ weights).backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_activation_checkpointing_changes_no_gradient(valued, encoded, places):
    gradients = []
    for checkpointing in (False, True):
        model = valued().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        token_values(model, encoded, places).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_wrapped_for_distributed_training_gives_the_same(valued, encoded, places, tmp_path):
    import torch.distributed as dist

    model = valued()
    expected = token_values(model, encoded, places)
    expected.sum().backward()
    gradient = model.score.weight.grad.clone()
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        values = token_values(wrapped, encoded, places)
        values.sum().backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(model.score.weight.grad, gradient)


@pytest.mark.parametrize("parameterisation", VALUATIONS)
def test_a_saved_model_gives_the_same_values(parameterisation, valued, encoded, places, tmp_path):
    model = valued("llama", parameterisation)
    expected = score_values(model, encoded, places)  # patched by now, which is not saved
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    again = load_valued(str(tmp_path), VALUATIONS[parameterisation], CPU, fresh=False)
    for one, other in zip(score_values(again.model, encoded, places), expected, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    kind = AutoModelForSequenceClassification if parameterisation == "linear" else AutoModelForCausalLM
    plain = kind.from_pretrained(tmp_path).eval()
    assert plainly(plain, encoded[0], int(places[0][-1])).item() == near(expected[0][-1].item())


@pytest.mark.parametrize("parameterisation", VALUATIONS)
def test_16_bits_give_float32(parameterisation, valued, encoded, places):
    model = valued("llama", parameterisation)
    exact = token_values(model, encoded, places).detach()
    low = token_values(copy.deepcopy(model).bfloat16(), encoded, places)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = token_values(model, encoded, places)
    assert low.dtype == mixed.dtype == torch.float32
    for rounded in (low, mixed):  # the states are rounded to 3 digits; the values are not once more
        assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
        assert not torch.equal(rounded, rounded.bfloat16().float())
    assert token_values(copy.deepcopy(model).double(), encoded[:1], places[:1]).dtype == torch.float64


def test_not_a_number_is_refused_with_the_name_of_the_response(valued, encoded):
    model = valued()
    with torch.no_grad():
        model.get_input_embeddings().weight[int(encoded[5].ids[-3])] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"problem 'p\d', sample \d: the value after its token \d+ is nan; the mod"
    ):
        score_values(model, encoded, everywhere(encoded))


@pytest.mark.parametrize("place", [-1, 1000])
def test_a_place_outside_a_response_is_refused(place, valued, encoded):
    with pytest.raises(DataError, match=rf"problem 'p0', sample 0: values are asked for at its tokens {place} to"):
        token_values(valued(), encoded[:1], [np.array([place])])


def test_a_model_that_was_not_loaded_for_values_is_refused(encoded, places):
    with pytest.raises(ModelError, match="LlamaForCausalLM that was not loaded for values; load it with load_valued"):
        token_values(tiny.language_model(), encoded, places)


def test_a_batch_that_does_not_fit_the_memory_is_halved(valued, encoded, places, monkeypatch):
    model = valued()
    expected = score_values(model, encoded, places)
    patched, asked = model.forward, []

    def scarce(**options):
        asked.append(options["input_ids"].numel())
        if asked[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return patched(**options)

    monkeypatch.setattr(model, "forward", scarce)
    for one, other in zip(score_values(model, encoded, places, token_budget=EVERYTHING), expected, strict=True):
        assert_near(one, other)
    assert max(asked) > 150


def test_a_head_of_zeros_does_not_hide_that_packed_rows_are_read_otherwise(tmp_path):
    model = load_valued(str(tiny.save(tmp_path)), VALUATIONS["linear"], CPU).model
    # A layer that sees the whole row before it, and so, packed, other responses.
    model.model.layers[0].mlp.register_forward_hook(lambda module, given, states: states + states.cumsum(1))
    assert not prepare(model)


def test_nothing_gives_nothing(valued):
    assert score_values(valued(), [], []) == []


def test_steps_are_read_at_their_last_tokens_and_responses_at_theirs():
    steps = [Span(0, 4), Span(4, 4), Span(4, 9)]  # the second lies inside a token of the first
    by_step, whole = (Valuation(parameterisation="linear", read_at=read_at) for read_at in ("steps", "response"))
    assert by_step.places(steps).tolist() == [3, 3, 8]
    assert whole.places(steps).tolist() == whole.places([Span(0, 9)]).tolist() == [8]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"parameterisation": "log_ratio", "read_at": "steps"}, "parameterisation 'log_ratio': expected one of linear"),
        ({"parameterisation": "linear", "read_at": "tokens"}, "read_at 'tokens': expected one of steps, response"),
        ({"parameterisation": "tokens", "read_at": "steps"}, "judgement None: expected the texts of two tokens"),
        ({"parameterisation": "linear", "read_at": "steps", "judgement": ("+", "-")}, "and none with any other"),
    ],
)
def test_a_valuation_that_is_none_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        Valuation(**parts)


def test_a_reward_configuration_says_what_its_values_are():
    config = RewardConfig(
        beta=1.0, base="b", reference=None, objective="ce", parameterisation="tokens", read_at="response",
        judgement=("yes", "no"),
    )  # fmt: skip
    expected = Valuation(parameterisation="tokens", read_at="response", judgement=("yes", "no"))
    assert valuation_of(config, source="x") == expected
    reference = Reference(source="b", weights_sha256="0" * 64)
    implicit = RewardConfig(beta=1.0, base="b", reference=reference, objective="ce")
    with pytest.raises(ModelError, match=r"x: an implicit process reward model.*`freeprm score --prm x`"):
        valuation_of(implicit, source="x")
    with pytest.raises(ModelError, match=r"x: reward.json: read_at 'None'"):
        valuation_of(replace(config, read_at=None), source="x")


def test_a_value_is_trained_where_it_is_read_and_a_shifted_label_is_not(valued, encoded):
    """The released Math-Shepherd training is one token off.

    Its labels stand at the separator's index j (`train/openrlhf/datasets/sft_prm_dataset.py`: one label in place of
    `sep_tid`), and `GPTLMLoss` drops the first label and the last logits: the label at j is fitted by the logits at
    j - 1, which have not read the separator. Its evaluation takes the logits at j (`eval/prm_eval_utils.py`:
    `rewards.gather(index=special_tokens)`, without a shift).
    """
    item = encoded[0]
    good, bad = tiny.tokenizer().convert_tokens_to_ids(["+", "-"])
    place = 5
    j = item.n_prompt + place  # the separator, at the end of a step
    labels = torch.full((1, len(item.ids)), -100)
    labels[0, j] = good

    def released(ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a next-token shift, and what is read."""
        out = tiny.language_model()(input_ids=torch.tensor(ids.tolist())[None], labels=labels)
        assert out.loss.item() == pytest.approx(cross_entropy(out.logits[0, j - 1], labels[0, j]).item())
        return out.loss, out.logits[0, j, good] - out.logits[0, j, bad]

    other = item.ids.copy()
    other[j] += 1  # another separator: what the released training fits does not see it, what is read does
    (loss, read), (other_loss, other_read) = released(item.ids), released(other)
    torch.testing.assert_close(other_loss, loss, atol=0, rtol=0)
    assert (other_read - read).abs() > 0.1

    model = valued("llama", "tokens")
    ours, others = (token_values(model, [replace(item, ids=ids)], [np.array([place])]) for ids in (item.ids, other))
    assert_near(ours[0], read)  # what is trained is what is read
    assert_near(others[0], other_read)


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
