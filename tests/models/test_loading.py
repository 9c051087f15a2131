import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForSequenceClassification

import tiny
from freeprm.errors import ConfigError, MissingExtraError, ModelError
from freeprm.models.loading import (
    LoadOptions,
    adapter_base,
    check_dtype,
    check_same_vocabulary,
    context_length,
    downloaded_revision,
    load_backbone,
    load_config,
    portable,
    resolve,
    template_hash,
    weights_hash,
)


@pytest.fixture
def folder(tmp_path):
    return tiny.save(tmp_path / "model")


def test_a_saved_model_loads_ready_for_inference(folder):
    backbone = load_backbone(str(folder))
    assert not backbone.model.training
    assert backbone.max_length == tiny.CONTEXT
    assert backbone.dtype == "float32"
    assert backbone.tokenizer("a")["input_ids"] == tiny.tokenizer()("a")["input_ids"]


def test_a_model_loads_in_the_precision_asked_for(folder):
    assert load_backbone(str(folder), LoadOptions(dtype="bfloat16")).dtype == "bfloat16"


def test_the_context_of_gpt2_goes_by_another_name():
    assert context_length(tiny.language_model("gpt2").config) == tiny.CONTEXT


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"a folder without config.json"):
        load_backbone(str(tmp_path))


def test_a_name_that_is_nothing_is_refused():
    with pytest.raises(ModelError, match="neither a folder here nor a model that the hub gives"):
        load_backbone("no/such-model")


def test_a_classifier_is_refused(folder):
    config = load_config(folder)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="a LlamaForSequenceClassification, not a causal language model"):
        load_backbone(str(folder))


def test_a_checkpoint_without_some_weights_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first model\.layers\.1\.mlp\.up_proj\.weight"):
        load_backbone(str(folder))


@pytest.mark.parametrize("damage", ["gone", "torn", "of another size"])
def test_weights_that_cannot_be_read_are_refused(folder, damage):
    file = folder / "model.safetensors"
    if damage == "gone":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        load_backbone(str(folder))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    tiny.language_model().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        load_backbone(str(tmp_path))


def test_an_adapter_is_loaded_on_its_base_with_the_extra_that_brings_peft(folder, tmp_path, monkeypatch, capsys):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load_backbone(str(folder)).model, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    tiny.tokenizer().save_pretrained(tmp_path / "adapter")
    ids = torch.arange(20)[None]
    loaded = load_backbone(str(tmp_path / "adapter"))
    assert "Loading" not in capsys.readouterr().err
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, adapted(input_ids=ids).logits)
    assert load_config(tmp_path / "adapter").model_type == "llama"
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"a LoRA adapter: .*pip install 'freeprm\[lora\]'"):
        load_backbone(str(tmp_path / "adapter"))


def test_tokenizers_that_mean_other_tokens_by_the_same_ids_are_refused(qwen_tokenizer):
    check_same_vocabulary(tiny.tokenizer(), tiny.tokenizer(template=tiny.LLAMA3))
    with pytest.raises(ModelError, match="the tokenizers of policy and reference differ"):
        check_same_vocabulary(tiny.tokenizer(), qwen_tokenizer)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="expected one of auto, float32, bfloat16, float16"):
        check_dtype("int8")


def test_a_folder_is_itself(tmp_path):
    folder = tiny.save(tmp_path / "model")
    assert resolve(str(folder)) == folder


def test_a_name_that_is_no_hub_id_is_refused_with_what_was_expected():
    with pytest.raises(ModelError, match="Expected a path, a hub id such as"):
        resolve("not a name")


def test_a_folder_is_named_in_full_and_anything_else_as_given(tmp_path, monkeypatch):
    tiny.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert portable("model") == str(tmp_path / "model")
    assert portable("meta-llama/Llama-3.1-8B-Instruct") == "meta-llama/Llama-3.1-8B-Instruct"
    assert portable("solver:base") == "solver:base"


def test_a_download_is_of_the_commit_that_its_folder_is_named_after():
    assert downloaded_revision(Path("hub/models--a--b/snapshots/0123abc")) == "0123abc"
    assert downloaded_revision(Path("models/mine")) is None


def test_an_adapter_names_its_base(tmp_path):
    assert adapter_base(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b", "revision": "r1"}')
    assert adapter_base(tmp_path) == ("a/b", "r1")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="base_model_name_or_path: is missing"):
        adapter_base(tmp_path)


def test_the_hash_is_of_the_weights_and_nothing_else(tmp_path):
    one, two, three = (tiny.save(tmp_path / f"{name}", seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    (two / "README.md").write_text("another card")
    assert weights_hash(one) == weights_hash(two) != weights_hash(three)


def test_weights_that_change_in_place_change_the_hash(tmp_path):
    folder = tiny.save(tmp_path / "model")
    before = weights_hash(folder)
    tiny.save(folder, seed=1)
    assert weights_hash(folder) != before


def test_an_adapters_hash_covers_its_base(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    hashes = []
    for seed in (0, 1):
        base = tiny.save(tmp_path / f"base{seed}", seed=seed)
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        hashes.append(weights_hash(adapter))
    assert hashes[0] != hashes[1]


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no weights; expected \*\.safetensors"):
        weights_hash(tmp_path)


def test_a_template_has_a_hash_that_survives_saving(tmp_path, qwen_tokenizer):
    from transformers import AutoTokenizer

    qwen_tokenizer.save_pretrained(tmp_path)
    assert template_hash(AutoTokenizer.from_pretrained(tmp_path)) == template_hash(qwen_tokenizer)
    assert template_hash(tiny.tokenizer()) is None
