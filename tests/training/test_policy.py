import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import device, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
)

import tiny
from freeprm.errors import ConfigError, ModelError
from freeprm.models.values import Valuation
from freeprm.training.policy import (
    check_precision,
    give_back_rounded,
    load_policy,
    trains_rounded,
    without_noise,
)
from freeprm.training.settings import TrainSettings

CPU = device("cpu")


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)),  # 0.1 everywhere
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                attention_dropout=0.5,
            )
        ),
        OPTForCausalLM(
            OPTConfig(
                vocab_size=300, hidden_size=32, ffn_dim=48, num_hidden_layers=6, num_attention_heads=4,
                word_embed_proj_dim=32, layerdrop=0.5,
            )
        ),
        MixtralForCausalLM(MixtralConfig(**tiny.sizes(num_local_experts=4, router_jitter_noise=0.5))),
        PhimoeForCausalLM(  # whose training mode draws experts at random besides
            PhimoeConfig(**tiny.sizes(num_local_experts=4, input_jitter_noise=0.5, router_jitter_noise=0.4))
        ),
    ],
    ids=["gpt2", "llama", "opt", "mixtral", "phimoe"],
)  # fmt: skip
def test_a_model_without_noise_computes_in_training_what_it_computes_at_use(model: nn.Module):
    ids = torch.arange(40)[None]
    at_use = model.eval()(input_ids=ids).logits
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    without_noise(model)
    assert torch.equal(model.train()(input_ids=ids).logits, at_use)
    assert torch.equal(model.eval()(input_ids=ids).logits, at_use)
    model.train()(input_ids=ids).logits.sum().backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters() if "gate" in name)


def test_a_model_without_noise_still_recomputes_activations():
    model, read = tiny.language_model(), []
    without_noise(model)
    model.activation_checkpointing_enable()
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: read.append(1))
    model.train()(input_ids=torch.arange(40)[None]).logits.sum().backward()
    assert len(read) == 2  # forward, and again for the backward pass


def test_every_weight_is_trained_unless_adapters_are_asked_for(model_folder):
    policy = load_policy(TrainSettings(model=str(model_folder)), model_folder, CPU)
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_adapters_start_from_the_model_as_it_is(model_folder):
    plain = load_policy(TrainSettings(model=str(model_folder)), model_folder, CPU)
    adapted = load_policy(TrainSettings(model=str(model_folder), lora=4), model_folder, CPU)
    ids = torch.arange(40)[None]
    assert torch.equal(plain(input_ids=ids).logits, adapted(input_ids=ids).logits)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(("parameterisation", "judgement"), [("linear", None), ("tokens", ("+", "-"))])
def test_adapters_of_a_model_of_values_train_its_fresh_head_too(model_folder, parameterisation, judgement):
    valuation = Valuation(parameterisation=parameterisation, read_at="response", judgement=judgement)
    settings = TrainSettings(model=str(model_folder), parameterisation=parameterisation, lora=4)
    policy = load_policy(settings, model_folder, CPU, valuation=valuation)
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert any("lora_" in name for name in trained)
    assert [name for name in trained if "lora_" not in name] == [
        "base_model.model.score.modules_to_save.default.weight"
    ] * (parameterisation == "linear")


@pytest.mark.parametrize("parameterisation", ["log_ratio", "linear"])
def test_adapters_and_a_fresh_head_are_float32_on_frozen_weights_of_16_bits(model_folder, parameterisation):
    valuation = None if parameterisation == "log_ratio" else Valuation(parameterisation="linear", read_at="response")
    settings = TrainSettings(model=str(model_folder), parameterisation=parameterisation, lora=4, dtype="bfloat16")
    policy = load_policy(settings, model_folder, CPU, valuation=valuation)
    assert {weight.dtype for weight in policy.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert {weight.dtype for weight in policy.parameters() if weight.requires_grad} == {torch.float32}
    assert not trains_rounded(policy)


KAHAN = {"optim": "stable_adamw", "adam_beta2": 0.95}


@pytest.mark.parametrize(
    ("dtype", "trainer", "message"),
    [
        ("bfloat16", {"learning_rate": 5e-7}, r"steps of 5e-07 are rounded away from bfloat16 weights: .*0\.0001 away"),
        ("bfloat16", {"optim": "adamw_torch_8bit"}, r"or bfloat16 weights with trainer\.optim=stable_adamw"),
        ("float16", KAHAN, r"rounded away from float16 weights: .* Train float32 weights"),
        ("bfloat16", {**KAHAN, "adam_beta2": 0.999}, r"trainer\.adam_beta2: is 0\.999, but .* Give 0\.99 or less"),
        ("bfloat16", {**KAHAN, "load_best_model_at_end": True}, r"load_best_model_at_end: .* stays with the optimizer"),
    ],
)
def test_weights_whose_steps_would_be_rounded_away_are_refused_before_and_after_loading(
    model_folder, dtype, trainer, message
):
    settings = TrainSettings(model=str(model_folder), dtype=dtype, trainer=trainer)
    with pytest.raises(ConfigError, match=message):
        check_precision(settings, model_folder)
    with pytest.raises(ConfigError, match=message):
        load_policy(settings, model_folder, CPU)


def test_weights_of_16_bits_are_found_where_the_folder_decides(tmp_path):
    tiny.language_model().to(torch.bfloat16).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="dtype: is 'auto', and every weight is trained"):
        check_precision(TrainSettings(model=str(tmp_path), dtype="auto"), tmp_path)
    for fine in ({"dtype": "float32"}, {"dtype": "bfloat16", "trainer": KAHAN}, {"dtype": "auto", "lora": 4}):
        check_precision(TrainSettings(model=str(tmp_path), **fine), tmp_path)


def test_what_was_rounded_away_is_given_back_in_float32():
    # A step of 1e-4 from 1: bfloat16's nearest neighbours are 0.0039 below and 0.0078 above, so the weight stays.
    optimi = pytest.importorskip("optimi")
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(model.weight)
    optimizer = optimi.StableAdamW(model.parameters(), lr=1e-4, weight_decay=0.0, betas=(0.9, 0.95), eps=1e-12)
    for _ in range(10):  # Adam's update under a constant gradient is the learning rate
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model.weight.item() == 1.0
    give_back_rounded(model, optimizer)
    assert model.weight.dtype is torch.float32
    assert model.weight.item() == pytest.approx(1.0 - 10 * 1e-4, abs=10 * 1e-4 * 2**-7)  # ten roundings of the rest


def test_an_adapter_is_no_start(model_folder, tmp_path):
    model = load_policy(TrainSettings(model=str(model_folder)), model_folder, CPU)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"a LoRA adapter; expected a whole model .* Merge it first"):
        load_policy(TrainSettings(model=str(tmp_path)), tmp_path, CPU)
