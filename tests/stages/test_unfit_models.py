"""Models that do not fit what they are asked for: what sampling, training and scoring say of each, once and early."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from freeprm.errors import ModelError
from freeprm.io.runs import read_manifest
from freeprm.models import memory
from freeprm.models.reward_config import load_reward_config
from freeprm.scorers.base import load_scorer
from freeprm.stages.base import RunResult
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.training import train
from freeprm.types import Problem, Rollout
from gguf_files import save_gguf

QUICK = {"learning_rate": 3e-3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "use_cpu": True}
Command = Callable[[Path, Path, Sequence[Rollout]], RunResult]


def _sample(model: Path, out: Path, rollouts: Sequence[Rollout]) -> RunResult:
    problems = [Problem(problem_id=one.problem_id, prompt=one.prompt, answer="1") for one in rollouts[::4]]
    return sample(problems, model=str(model), out=out, n=2, max_new_tokens=200, temperature=1.0)


def _train(model: Path, out: Path, rollouts: Sequence[Rollout]) -> RunResult:
    return train(rollouts, model=str(model), out=out, objective="ce", beta=0.5, trainer=QUICK)


def _score(model: Path, out: Path, rollouts: Sequence[Rollout]) -> RunResult:
    return score(rollouts, untrained=str(model), out=out)


COMMANDS: dict[str, Command] = {"sample": _sample, "train": _train, "score": _score}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


def saved(folder: Path, *, template: str | None = tiny.LLAMA3, **changed: object) -> Path:
    LlamaForCausalLM(LlamaConfig(**tiny.sizes(**changed))).save_pretrained(folder)
    tiny.tokenizer(template=template).save_pretrained(folder)
    return folder


@every_command
def test_a_token_without_an_embedding_is_named_before_anything_is_read(command, tmp_path, monkeypatch):
    model = saved(tmp_path / "m", vocab_size=270)
    monkeypatch.setattr(LlamaForCausalLM, "forward", None)
    with pytest.raises(ModelError, match=r"problem 'p0', sample 0: token \d+ is beyond the 270 that .*/m has"):
        command(model, tmp_path / "out", tiny.rollouts(4))


@every_command
def test_a_context_shorter_than_a_response_is_counted_once(command, tmp_path):
    model = saved(tmp_path / "m", max_position_embeddings=60)
    rollouts = tiny.rollouts(4)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        counts = command(model, tmp_path / "out", rollouts).counts
    of_length = {name: n for name, n in counts.items() if "context" in name}
    assert len(of_length) == 1
    assert 0 < next(iter(of_length.values())) <= len(rollouts)
    assert not [one for one in warned if "context" in str(one.message)]


@every_command
def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(command, tmp_path, monkeypatch):
    model = saved(tmp_path / "m")
    monkeypatch.setattr(memory, "room", lambda device: 10_000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(ModelError, match=r"GB, but cpu has 1e-05 GB in all; ") as refused:
        command(model, tmp_path / "out", tiny.rollouts(4))
    if command is _train:
        n = LlamaForCausalLM(LlamaConfig(**tiny.sizes())).num_parameters()
        assert f"training {n:,} of its {n:,} weights" in str(refused.value)
        assert f"takes {16 * n / 1e9:.3g} GB" in str(refused.value)  # weight, gradient and two moments in float32


@every_command
def test_prompts_without_a_chat_template_are_told_of_once(command, tmp_path):
    for name, template in (("base", None), ("chat", tiny.LLAMA3)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            command(saved(tmp_path / name, template=template), tmp_path / f"out-{name}", tiny.rollouts(4))
        told = [str(one.message) for one in warned if "no chat template" in str(one.message)]
        assert len(told) == (template is None)
        assert all("base: its tokenizer has no chat template" in text for text in told)


@pytest.mark.filterwarnings("ignore:.*was dequantised")
def test_a_gguf_file_goes_all_the_way_and_every_run_says_that_it_was_dequantised(tmp_path):
    file = tmp_path / "start.gguf"
    save_gguf(file, template=tiny.LLAMA3)
    rollouts = tiny.rollouts(4)
    made = {name: command(file, tmp_path / name, rollouts) for name, command in COMMANDS.items()}
    settings = {name: read_manifest(tmp_path / name)["settings"] for name in made}
    assert settings["sample"]["weights_dequantised"] == "Q8_0"
    assert settings["score"]["policy_dequantised"] == settings["score"]["reference_dequantised"] == "Q8_0"
    assert settings["train"]["model_dequantised"] == settings["train"]["reference_dequantised"] == "Q8_0"
    reference = load_reward_config(tmp_path / "train").reference
    assert (reference.source, reference.dequantised) == (str(file), "Q8_0")
    assert made["score"].counts["scored"] == len(rollouts)
    best = load_scorer(tmp_path / "train").best_of_n("the sum of 3 and 4?", ["Step 1: yes, 7", "Step 1: no, 8"])
    assert best.index in (0, 1)
