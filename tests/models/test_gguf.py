import os
import sys
from pathlib import Path

import pytest
import torch

import tiny
from freeprm.errors import MissingExtraError, ModelError
from freeprm.models.gguf import quantisation, read_header
from freeprm.models.loading import (
    LoadOptions,
    load_backbone,
    load_config,
    load_tokenizer,
    portable,
    resolve,
    template_hash,
    weights_hash,
    weights_identity,
)
from freeprm.models.memory import weight_bytes
from freeprm.models.values import Valuation, load_valued
from gguf_files import save_gguf

pytestmark = pytest.mark.filterwarnings("ignore:.*was dequantised")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_gguf(tmp_path / "model.gguf", template=tiny.LLAMA3)
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("architecture", ["llama", "llama tied", "qwen2"])
def test_a_file_is_the_model_that_it_was_made_of_up_to_its_quantisation(tmp_path, architecture):
    original = save_gguf(tmp_path / "m.gguf", architecture=architecture)
    loaded = load_backbone(str(tmp_path / "m.gguf"))
    weights = loaded.model.state_dict()
    for name, weight in original.state_dict().items():
        # Q8_0 rounds to one of 127 steps from 0 to the largest of 32 weights, and the size of a step to float16.
        assert (weights[name] - weight).abs().max() <= weight.abs().max() * (1 / 127 / 2 + 2**-11)
    assert type(loaded.model) is type(original)
    assert (loaded.dtype, loaded.max_length, load_config(loaded.folder).dtype) == ("float32", 128, torch.float32)


def test_its_tokenizer_reads_text_as_the_one_that_it_was_made_of(file):
    ours, theirs = load_tokenizer(file), tiny.tokenizer(template=tiny.LLAMA3)
    for text in ("Step 1: we add 3 and 4, which is 7.\n\nStep 2", "<s>the sum<|eot_id|> is  right?"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert template_hash(ours) == template_hash(theirs)
    assert (ours.bos_token, ours.eos_token, ours.name_or_path) == ("<s>", "<|eot_id|>", str(file))


def test_it_says_what_it_was_dequantised_from(file):
    with pytest.warns(UserWarning, match=r"model\.gguf: was dequantised, from Q8_0 to bfloat16"):
        load_backbone(str(file), LoadOptions(dtype="bfloat16"))
    assert quantisation(file) == "Q8_0"
    assert quantisation(file.parent) is None
    assert weights_identity(file, role="model") == {
        "model_sha256": weights_hash(file), "model_dequantised": "Q8_0"
    }  # fmt: skip
    assert weights_identity(None, role="reference") == {"reference_sha256": None}


def test_it_can_be_saved_as_a_folder_and_is_the_same_model(file, tmp_path):
    loaded = load_backbone(str(file))
    loaded.model.save_pretrained(tmp_path / "folder")
    loaded.tokenizer.save_pretrained(tmp_path / "folder")
    again = load_backbone(str(tmp_path / "folder"))
    ids = torch.arange(20)[None]
    assert torch.equal(again.model(input_ids=ids).logits, loaded.model(input_ids=ids).logits)
    assert again.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


def test_a_tokenizer_may_be_changed_without_another_one_noticing(file):
    load_tokenizer(file).chat_template = "another"
    assert load_tokenizer(file).chat_template == tiny.LLAMA3


def test_its_hash_is_of_its_contents_whatever_its_name(file, tmp_path):
    before = weights_hash(file)
    other = file.rename(tmp_path / "other.gguf")
    assert weights_hash(other) == before
    save_gguf(other, seed=1)
    assert weights_hash(other) != before


def test_it_is_found_from_any_folder_and_not_mistaken_for_another_of_its_name(file, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    save_gguf(tmp_path / "elsewhere" / file.name, seed=1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    there, here = (load_backbone(str(one)).model.state_dict() for one in (file, Path(file.name)))
    assert not torch.equal(there["lm_head.weight"], here["lm_head.weight"])
    monkeypatch.chdir(tmp_path)
    assert portable(file.name) == str(file)


def test_it_can_be_given_a_head_for_values(file):
    valued = load_valued(str(file), Valuation(parameterisation="linear", read_at="steps"))
    assert not valued.model.score.weight.any()
    expected = load_backbone(str(file)).model.model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in valued.model.model.state_dict().items())


def test_an_adapter_may_stand_on_one(file, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load_backbone(str(file)).model, LoraConfig(r=2, target_modules="all-linear"))
    adapted.peft_config["default"].base_model_name_or_path = portable(str(file))
    adapted.save_pretrained(tmp_path / "adapter")
    tiny.tokenizer().save_pretrained(tmp_path / "adapter")
    ids = torch.arange(20)[None]
    loaded = load_backbone(str(tmp_path / "adapter"))
    torch.testing.assert_close(loaded.model(input_ids=ids).logits, adapted(input_ids=ids).logits)
    assert weights_identity(tmp_path / "adapter", role="policy")["policy_dequantised"] == "Q8_0"


def test_its_size_is_that_of_the_dequantised_weights(file):
    n_weights = sum(weight.numel() for weight in load_backbone(str(file)).model.parameters())
    assert read_header(file).n_weights == n_weights
    assert [weight_bytes(file, dtype) for dtype in (None, torch.bfloat16)] == [4 * n_weights, 2 * n_weights]


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match=r"no/such\.gguf: no such file; expected a GGUF file, a model folder"):
        resolve("no/such.gguf")


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"not a GGUF file: it begins with b'vers' instead of b'GGUF'"):
        resolve(str(tmp_path / "pointer.gguf"))


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(file, kept):
    os.truncate(file, int(kept * file.stat().st_size))
    with pytest.raises(ModelError, match=r"cut off or damaged: its [\d,]+ bytes are not what its header promises"):
        resolve(str(file))


def test_an_architecture_that_transformers_cannot_read_is_refused(tmp_path):
    save_gguf(tmp_path / "m.gguf", named="frobnicate")
    with pytest.raises(ModelError, match=r"architecture 'frobnicate', which transformers [\d.]+ cannot read .*folder"):
        load_backbone(str(tmp_path / "m.gguf"))


def test_a_file_without_a_vocabulary_is_refused(tmp_path):
    save_gguf(tmp_path / "m.gguf", with_tokenizer=False)
    with pytest.raises(ModelError, match=r"no tokenizer could be loaded .*expected a GGUF with its vocabulary"):
        load_backbone(str(tmp_path / "m.gguf"))


def test_it_names_the_extra_that_reads_it(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"model\.gguf: a GGUF file: .*pip install 'freeprm\[gguf\]'"):
        resolve(str(file))


def test_a_folder_that_only_holds_one_is_told_to_name_it(file):
    with pytest.raises(ModelError, match=r"a folder without config\.json; .*, or its GGUF file: .*model\.gguf"):
        resolve(str(file.parent))
