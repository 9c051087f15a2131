"""What goes wrong with released models, as a user of `freeprm score --scorer` meets it: refused or handled."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import releases
from freeprm.cli.main import app
from freeprm.errors import DataError, FreePRMError, ModelError
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.io.rows import write_rows
from releases import one, save_released, seeded


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of Llama's class."""
    return save_released(tmp_path_factory.mktemp("causal"), seeded(releases.llama), releases.llama_tokenizer())


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_released(tmp_path_factory.mktemp("ms"), seeded(releases.mistral), releases.mistral_tokenizer())


def score(folder: Path, scorer: str, model: Path, response: str, *options: str) -> Path | FreePRMError:
    """The folder that the command made of one response, or what it refused it with."""
    write_rows(folder / "rollouts.jsonl", [rollout_row(one(response))])
    given = ["score", str(folder / "rollouts.jsonl"), "--scorer", scorer, "--model", str(model), "--device", "cpu"]
    done = CliRunner().invoke(app, [*given, *options, "--out", str(folder / "scores")])
    if done.exception is None:
        return folder / "scores"
    assert isinstance(done.exception, FreePRMError), done.exception
    assert not list((folder / "scores").glob("*.jsonl")), "scores were written all the same"
    return done.exception


@pytest.mark.parametrize(
    ("scorer", "wanted"),
    [
        ("skywork_reward", r"\*ForSequenceClassification"),
        ("qwen_math_prm", "Qwen2ForProcessRewardModel"),
        ("eurus_rm", "EurusRewardModel"),
        ("armo_rm", "LlamaForRewardModelWithGating"),
    ],
)
def test_a_language_model_gives_no_rewards_where_a_head_is_needed(
    scorer: str, wanted: str, causal: Path, tmp_path: Path
):
    error = score(tmp_path, scorer, causal, "two")
    assert isinstance(error, ModelError)
    assert f"a LlamaForCausalLM, but {scorer} is a " in str(error)
    assert wanted.replace("\\", "") in str(error)
    assert "has no rewards to give" in str(error)


def test_the_logits_of_a_language_model_behind_a_checkpoint_s_own_code_are_no_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # As with community copies of Qwen2.5-Math-PRM whose `auto_map` leads to a language model: one number a token and
    # word of the vocabulary.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = seeded(lambda: releases.qwen(vocab_size=151_660))
    own = {"AutoModel": "modeling_copy.Copy"}
    (tmp_path / "copy").mkdir()
    folder = save_released(
        tmp_path / "copy", model, releases.qwen_tokenizer(), architecture="Qwen2ForProcessRewardModel", auto_map=own
    )
    (folder / "modeling_copy.py").write_text(
        "from transformers import Qwen2ForCausalLM\n\nclass Copy(Qwen2ForCausalLM):\n    pass\n"
    )
    error = score(tmp_path, "qwen_math_prm", folder, "two", "--trust-remote-code")
    assert isinstance(error, ModelError)
    assert ", 151660) numbers for " in str(error)
    assert "where 2 a token are expected; a language model's logits are no rewards" in str(error)


@pytest.mark.parametrize(
    ("response", "scorer"),
    [("two", "skywork_reward"), ("two\n\nthree", "qwen_math_prm"), ("two\nthree", "math_shepherd")],
)
def test_a_classifier_of_another_kind_is_refused(response: str, scorer: str, tmp_path: Path):
    (tmp_path / "classifier").mkdir()
    folder = save_released(
        tmp_path / "classifier", seeded(lambda: releases.llama(labels=3)), releases.llama_tokenizer()
    )
    error = score(tmp_path, scorer, folder, response)
    assert isinstance(error, ModelError)
    assert scorer in str(error)


def test_a_marker_that_is_another_token_or_splits_is_refused_by_both_ids(tmp_path: Path):
    model = seeded(releases.mistral)
    for name, tokenizer, found in [
        ("other", releases.mistral_tokenizer(**{"▁ки": 12903}), "'ки' is token 12903"),  # `ки` and ` ки` differ
        ("split", releases.llama_tokenizer(), "'ки' splits into ["),
    ]:
        (tmp_path / name).mkdir()
        folder = save_released(tmp_path / name, model, tokenizer)
        error = score(tmp_path / name, "math_shepherd", folder, "Step 1: two")
        assert isinstance(error, ModelError)
        assert found in str(error)
        assert "is read by token 12902; use the tokenizer that was released with the model" in str(error)


def test_a_response_without_any_marker_is_scored_with_markers_put_in(shepherd: Path, tmp_path: Path):
    made = score(tmp_path, "math_shepherd", shepherd, "no marker, and one line")
    assert isinstance(made, Path)
    (rollout,) = read_rollouts([made]).rollouts
    assert rollout.response == "no marker, and one line"
    assert rollout.step_scores is not None
    assert len(rollout.step_scores) == 1
    assert 0 < rollout.step_scores[0] < 1


@pytest.mark.parametrize("response", ["Step 1: two ки\nStep 2: three ки", "the letters ки alone"])
def test_a_marker_in_the_text_is_refused_by_its_place_and_with_what_to_do(
    response: str, shepherd: Path, tmp_path: Path
):
    error = score(tmp_path, "math_shepherd", shepherd, response)
    assert isinstance(error, DataError)
    assert "problem 'p', sample 3: the response holds the step marker 'ки' at character" in str(error)
    assert "give the steps in the column 'steps'" in str(error)


def test_what_convert_makes_of_marked_text_is_scored(shepherd: Path, tmp_path: Path):
    marked = {
        "input": "One? Step 1: two ки\nStep 2: three ки",
        "label": "One? Step 1: two +\nStep 2: three -",
        "task": "M",
    }
    write_rows(tmp_path / "shepherd.jsonl", [marked])
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "shepherd.jsonl"), "--out", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 0, done.output
    given = ["--scorer", "math_shepherd", "--model", str(shepherd), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["score", str(tmp_path / "rows.jsonl"), *given, "--out", str(tmp_path / "scores")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"]["scored"] == 1
    (rollout,) = read_rollouts([tmp_path / "scores"]).rollouts
    assert rollout.step_scores is not None
    assert len(rollout.step_scores) == 2


def test_a_marker_of_qwen_s_in_the_text_is_refused(tmp_path: Path):
    (tmp_path / "prm").mkdir()
    head = {
        "score.0.weight": torch.zeros(16, 16), "score.0.bias": torch.zeros(16),
        "score.2.weight": torch.zeros(2, 16), "score.2.bias": torch.zeros(2),
    }  # fmt: skip
    folder = save_released(
        tmp_path / "prm", seeded(releases.qwen), releases.qwen_tokenizer(), architecture="Qwen2ForProcessRewardModel",
        head=head,
    )  # fmt: skip
    error = score(tmp_path, "qwen_math_prm", folder, "two <extra_0> three")
    assert isinstance(error, DataError)
    assert "the response holds the step marker '<extra_0>' at character 4" in str(error)
    made = score(tmp_path, "qwen_math_prm", folder, "two\n\nthree")
    assert isinstance(made, Path)
    assert read_rollouts([made]).rollouts[0].step_scores == (0.5, 0.5)  # softmax of (0, 0)
