import json

import numpy as np
import pytest
import torch

import releases
from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.heads import Layout, ScoreHead
from freeprm.models.loading import LoadOptions
from freeprm.models.rewarding import load_reward_model, load_token_model, read_marked
from freeprm.models.scoring_input import ScoringInput
from releases import save_released, seeded
from rounding import assert_near, near

CPU = LoadOptions(device="cpu")
LAYOUT = Layout(architectures=("*ForSequenceClassification",), build=ScoreHead)


def marked(ids, *positions):
    return ScoringInput(name=f"response {ids[0]}", text="", ids=np.array(ids, np.int32), positions=positions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = seeded(lambda: releases.llama(labels=1))
    return save_released(tmp_path_factory.mktemp("scores"), model, releases.llama_tokenizer())


def test_each_position_is_read_in_its_own_row_whatever_stands_beside_it(folder):
    model = load_reward_model(str(folder), LAYOUT, CPU, recipe="x")
    items = [marked([5, 6], 1), marked([7, 8, 9, 10, 11], 0, 4), marked([5, 6, 7], 1)]
    tokens = []
    outputs = read_marked(
        model, items, n_outputs=lambda item: len(item.positions), advance=lambda *batch: tokens.append(batch[0])
    )
    assert [len(output) for output in outputs] == [1, 2, 1]
    assert outputs[0].item() == near(outputs[2].item())  # what follows is not seen
    assert sum(tokens) == 10  # no padding
    small = read_marked(model, items, n_outputs=lambda item: len(item.positions), token_budget=1)
    for one, other in zip(outputs, small, strict=True):
        assert_near(one, other)


@torch.inference_mode()
def test_a_head_computes_in_float32_on_a_transformer_of_16_bits(folder):
    model = load_reward_model(str(folder), LAYOUT, LoadOptions(device="cpu", dtype="bfloat16"), recipe="x")
    (output,) = read_marked(model, [marked([7, 8, 9], 0, 2)], n_outputs=lambda item: 2)
    hidden = model.backbone.model(input_ids=torch.tensor([[7, 8, 9]])).last_hidden_state[0, [0, 2]]
    weight = model.head.score.weight
    assert hidden.dtype == torch.bfloat16
    error = (output - hidden.double() @ weight.double().t()).abs()
    assert (error <= 16 * 2**-24 * (hidden.double().abs() @ weight.double().abs().t())).all()  # sums of 16 terms


def test_numbers_that_are_none_name_the_response(tmp_path):
    model = seeded(lambda: releases.llama(labels=1))
    torch.nn.init.constant_(model.score.weight, float("nan"))
    loaded = load_reward_model(str(save_released(tmp_path, model, releases.llama_tokenizer())), LAYOUT, CPU, recipe="x")
    with pytest.raises(NonFiniteError, match="response 5: the model gives"):
        read_marked(loaded, [marked([5, 6], 1)], n_outputs=lambda item: 1)


def test_a_checkpoint_that_lacks_a_layer_is_refused(tmp_path):
    model = seeded(lambda: releases.llama(labels=1))
    head = {"score.weight": model.score.weight.detach()}
    folder = save_released(tmp_path, model, releases.llama_tokenizer(), head=head)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"the checkpoint lacks \d+ weights, first layers\.2"):
        load_reward_model(str(folder), LAYOUT, CPU, recipe="x")


def test_a_vocabulary_that_is_too_small_for_the_tokens_is_refused(tmp_path):
    folder = save_released(tmp_path, seeded(releases.mistral), releases.mistral_tokenizer())
    with pytest.raises(ModelError, match="32000 tokens, but x reads the logit of token 40000"):
        load_token_model(str(folder), (1, 40_000), CPU, recipe="x")


def test_own_code_that_fails_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((folder / "config.json").read_text())
    stored = config | {"auto_map": {"AutoModel": "modeling_old.Old"}, "architectures": ["Old"]}
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(stored))
    (tmp_path / "modeling_old.py").write_text(
        "from transformers.models.llama.modeling_llama import LLAMA_INPUTS_DOCSTRING\n"
    )
    with pytest.raises(ModelError, match=r"cannot be loaded \(ImportError: .*LLAMA_INPUTS_DOCSTRING"):
        load_reward_model(str(tmp_path), LAYOUT, LoadOptions(device="cpu", trust_remote_code=True), recipe="x")
