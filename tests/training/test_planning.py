"""A plan is the forecast of a run on other devices; the recipes of configs/ fit the GPUs that they name."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

import tiny
from freeprm.cli import main
from freeprm.errors import ConfigError, ModelError
from freeprm.io.rollouts import rollout_row
from freeprm.settings import LaunchSettings
from freeprm.training.planning import plan_launch
from freeprm.training.settings import TrainSettings, load_settings, training_arguments

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.toml"))
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def settings(model: object = LLAMA, **how) -> TrainSettings:
    return TrainSettings(**{"model": str(model), "max_length": 1000, "trainer": {"bf16": True}, **how})


def command_of(recipe: Path, start: str) -> list[str]:
    """The words of a command in a recipe's head, with paths from the repository."""
    lines = (line.removeprefix("#").strip() for line in recipe.read_text(encoding="utf-8").splitlines())
    [line] = [line for line in lines if line.startswith(start)]
    root = str(CONFIGS.parent)
    return [word.replace("configs/", f"{root}/configs/") for word in shlex.split(line)]


def run(words: list[str], monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main.run()
    out = capsys.readouterr()
    assert ended.value.code in (0, None), out.err
    return out.out


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_taken_by_training_and_fits_the_gpus_that_it_names(recipe, tmp_path, monkeypatch, capsys):
    made = json.loads(run([*command_of(recipe, "freeprm plan"), "--json"], monkeypatch, capsys))
    assert (made["fits"], made["changes"]) == (True, [])
    assert made["responses"] / made["steps"] == pytest.approx(64, rel=0.01)
    launched = command_of(recipe, "accelerate launch")
    launch_command_parser().parse_args(launched[2:])  # exits where accelerate does not know a flag
    launch = made["launch"]
    assert Path(launched[launched.index("--config_file") + 1]).stem == launch["sharding"]
    assert Path(launched[launched.index("--config_file") + 1]).exists()
    n_processes = int(launched[launched.index("--num_processes") + 1]) if "--num_processes" in launched else 8
    assert n_processes == launch["gpus"]
    training_arguments(load_settings(options={}, file=recipe), tmp_path)


def test_the_shipped_shapes_have_the_published_numbers_of_weights():
    # 2 V d + L (2 d a + 2 d k + 3 d f + 2 d) + d: embeddings and head, and of each layer attention, MLP and norms.
    llama_8b = 2 * 128_256 * 4096 + 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14_336 + 2 * 4096) + 4096
    llama_70b = 2 * 128_256 * 8192 + 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672 + 2 * 8192) + 8192
    layer = 2 * 5120**2 + 2 * 5120 * 1024 + 3 * 5120 * 27_648 + 2 * 5120 + 5120 + 2 * 1024  # with biases of q, k, v
    qwen_32b = 2 * 152_064 * 5120 + 64 * layer + 5120
    named = {LLAMA: llama_8b, "meta-llama/Llama-3.1-70B": llama_70b, "Qwen/Qwen2.5-32B": qwen_32b}
    assert list(named.values()) == [8_030_261_248, 70_553_706_496, 32_763_876_352]
    for model, n_weights in named.items():
        assert plan_launch(settings(model), LaunchSettings(max_memory="9TB")).forecast.weights.trained == n_weights


def test_tokens_steps_and_hours_follow_from_the_numbers_given():
    launch = LaunchSettings(gpus=4, n_prompts=100, n=8, prompt_tokens=50, response_tokens=100, mfu=0.5, tflops=100)
    made = plan_launch(settings(), launch)
    expected = made.forecast
    assert expected.data.n_responses == 800
    assert expected.n_tokens == 100 * (50 + 8 * 100)  # a prompt once for its responses
    assert expected.n_steps == 4  # 25 prompts on each GPU, 8 a step by the recipe
    assert expected.data.largest == (50 + 8 * 950, 8 * 950, 8 * 1000)  # all responses as long as may be
    assert made.gpu_hours == pytest.approx(expected.flops / (0.5 * 100e12) / 3600)
    assert made.hours == pytest.approx((made.gpu_hours + made.reference_gpu_hours) / 4)
    assert expected.reference_flops == pytest.approx(expected.flops / 3)  # forward, of forward and backward
    assert plan_launch(settings(with_reference=False), launch).reference_gpu_hours == 0


def test_what_does_not_fit_is_told_with_what_would_make_it_fit():
    made = plan_launch(settings(max_length=4000), LaunchSettings(gpus=8))
    assert made.fits is False
    assert made.changes[0] == "--sharding fsdp2"
    assert "--set trainer.gradient_checkpointing=true" in made.changes
    less = plan_launch(settings(max_length=4000), LaunchSettings(gpus=8, max_memory="1GiB"))
    assert (less.device.n_bytes, less.changes) == (2**30, ())


def test_rollouts_are_counted_as_training_counts_them(model_folder, tmp_path):
    data = tmp_path / "rollouts.jsonl"
    rows = [json.dumps(rollout_row(rollout), default=str) for rollout in tiny.rollouts(4)]
    data.write_text("\n".join(rows), encoding="utf-8")
    made = plan_launch(settings(model_folder, max_length=None), LaunchSettings(gpus=2), [data])
    assert made.forecast.data.n_responses == len(rows)
    assert made.fits


def test_a_config_json_is_a_model(model_folder):
    made = plan_launch(settings(model_folder / "config.json"), LaunchSettings())
    assert made.forecast.weights.trained > 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"gpu": "h10"}, "gpu: 'h10' is not known. Did you mean 'h100'?"),
        ({"offload": True}, "offload: ddp keeps everything on the GPU"),
        ({"mfu": 1.5}, "mfu: is 1.5; expected a share above 0 and up to 1"),
        ({"gpus": 0}, "gpus: is 0; expected 1 or more"),
        ({"max_memory": "much"}, "max_memory: is 'much'; expected bytes above 0"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(how, message):
    with pytest.raises(ConfigError) as error:
        plan_launch(settings(), LaunchSettings(**how))
    assert str(error.value).startswith(message)


def test_the_longest_response_has_to_be_given_without_rollouts():
    with pytest.raises(ConfigError, match="max_length: is None; expected the tokens of the longest prompt"):
        plan_launch(settings(max_length=None), LaunchSettings())


def test_an_unknown_model_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="neither a folder here nor a model that the hub gives"):
        plan_launch(settings("no/such-model"), LaunchSettings())


def test_the_table_says_what_is_on_each_gpu(monkeypatch, capsys):
    words = f"freeprm plan --model {LLAMA} --max-length 1000 --lora 16 --gpus 1 --set dtype=bfloat16".split()
    shown = run(words, monkeypatch, capsys)
    assert f"{LLAMA}, ce, LoRA 16: 1 x h100, ddp" in shown
    assert "before: reference while it reads" in shown
    assert "fits: 80.0 GB a GPU" in shown
