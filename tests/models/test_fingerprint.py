import json

import pytest

import tiny
from freeprm.errors import ModelError
from freeprm.models.fingerprint import template_hash, weights_hash


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
