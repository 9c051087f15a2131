"""Training in several processes, as the files of configs/accelerate start it, is training in one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch.distributed.fsdp import StateDictType

import stepped
import tiny
from freeprm.errors import RunFolderError
from freeprm.io.plugins import names
from freeprm.io.rollouts import rollout_row
from freeprm.io.runs import read_manifest
from launching import CONFIGS, Run, do, launch_runs

WAYS: dict[str, dict[str, Any]] = {
    **{objective: {"objective": objective} for objective in names("objectives")},
    "linear": {"objective": "osv", "parameterisation": "linear"},
    "tokens": {"objective": "dpo", "parameterisation": "tokens"},
    "adapters": {"objective": "ce", "lora": 4},
    "adapters, tokens": {"objective": "dpo", "parameterisation": "tokens", "lora": 4},
    "tied": {"objective": "kto", "model": "tied"},
    "recomputed": {"objective": "ce", "trainer": {"gradient_checkpointing": True}},
}
"""Every objective, and what else decides how a model is wrapped and saved."""
STEPS = {"learning_rate": 1e-3, "logging_steps": 1, "num_train_epochs": 2.0, "save_steps": 3, "use_cpu": True}
"""8 steps of 4 prompts, the 4th and the 8th of one alone: 13 prompts, twice. Evaluated on after 4 and 8."""
ELSEWHERE = ("ce", "kto", "bco", "adapters")
"""Ways that go on in another number of processes."""


def runs(folder: Path, *, batch_size: int, out: str, stop_at: int | None = None) -> dict[str, Run]:
    """By name, runs into `folder/out/NAME`, in micro-batches of so many prompts in each process."""
    made = {}
    for name, how in WAYS.items():
        trainer = {
            **STEPS, "per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 2,
            "per_device_eval_batch_size": 2, "save_total_limit": 9, **how.get("trainer", {}),
        }  # fmt: skip
        model = str(folder / how.get("model", "start"))
        options = {"beta": 0.5, **how, "model": model, "trainer": trainer}
        data, dev = str(folder / "rollouts.jsonl"), str(folder / "dev.jsonl")
        made[name] = Run(options, data, dev, str(folder / out / name), stop_at)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, data, and what one process makes of them, in `one`."""
    made = tmp_path_factory.mktemp("launched")
    tiny.save(made / "start", template=tiny.LLAMA3)
    tiny.save(made / "tied", architecture="llama tied", template=tiny.LLAMA3)
    for file, n_problems, seed in (("rollouts", 13, 0), ("dev", 3, 4)):
        rows = [json.dumps(rollout_row(rollout)) + "\n" for rollout in stepped.rollouts(n_problems, seed=seed)]
        (made / f"{file}.jsonl").write_text("".join(rows))
    for run in runs(made, batch_size=2, out="one").values():
        do(run)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_does_and_go_on_from_a_checkpoint(folder, config):
    whole, cut = (runs(folder, batch_size=1, out=f"{config}-{out}") for out in ("whole", "cut"))
    launch_runs([*whole.values(), *(run._replace(stop_at=7) for run in cut.values())], config, folder / "given.json")
    launch_runs(list(cut.values()), config, folder / "given.json")
    for name, one in runs(folder, batch_size=2, out="one").items():
        for other in (whole[name], cut[name]):
            assert_same_run(Path(one.out), Path(other.out), name)
        scored = [read_manifest(Path(run.out))["cost"]["scored_tokens"] for run in (one, whole[name])]
        assert scored[0] == scored[1]


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(folder):
    one, two = (
        {
            (out, name): runs(folder, batch_size=size, out=out)[name]
            for out in ("wider", "narrower")
            for name in ELSEWHERE
        }
        for size in (2, 1)
    )
    in_two = []
    for way, run in two.items():
        if way[0] == "wider":
            do(one[way]._replace(stop_at=7))
        in_two.append(run if way[0] == "wider" else run._replace(stop_at=7))
    launch_runs(in_two, "ddp", folder / "given.json")
    whole = runs(folder, batch_size=2, out="one")
    for way, run in one.items():
        if way[0] == "narrower":
            do(run)
        assert len(read_manifest(Path(run.out))["sessions"]) == 2
        assert_same_run(Path(whole[way[1]].out), Path(run.out), str(way))
    with pytest.raises(RunFolderError, match="prompts_per_step is 4, not 2"):
        do(runs(folder, batch_size=1, out="one")["ce"])


TIMES = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def assert_same_run(one: Path, other: Path, name: str) -> None:
    """The same losses and measures, model and cost."""
    logs = [json.loads((out / "log.json").read_text()) for out in (one, other)]
    for a, b in zip(*logs, strict=True):
        assert a.keys() - TIMES == b.keys() - TIMES
        for key in a.keys() - TIMES:
            relative = 1e-4 if key == "grad_norm" else None
            assert a[key] == pytest.approx(b[key], abs=1e-5, rel=relative), (name, a["step"], key)
    (file,) = [file.name for file in one.glob("*model.safetensors")]
    ours, theirs = load_file(one / file), load_file(other / file)
    assert ours.keys() == theirs.keys()
    for weight, tensor in ours.items():
        torch.testing.assert_close(theirs[weight], tensor, atol=1e-5, rtol=1e-4, msg=lambda said: f"{name}: {said}")
    trained = [read_manifest(out)["cost"]["trained_tokens"] for out in (one, other)]
    assert trained[0] == trained[1]


@pytest.mark.parametrize("config", ["ddp", "fsdp2", "deepspeed_zero3"])
def test_accelerate_reads_the_files(config):
    file = str(CONFIGS / f"{config}.yaml")
    read = load_config_from_file(file)
    assert (read.num_processes, read.num_machines, read.mixed_precision) == (8, 1, "bf16")
    parsed = launch_command_parser().parse_args(["--config_file", file, "-m", "freeprm", "train"])
    arguments, _, _ = _validate_launch_command(parsed)
    kind = {"ddp": "multi_gpu", "fsdp2": "use_fsdp", "deepspeed_zero3": "use_deepspeed"}
    assert [name for name in kind.values() if getattr(arguments, name)] == [kind[config]]


def test_shards_are_layers_and_are_saved_whole(monkeypatch):
    parsed = launch_command_parser().parse_args(["--config_file", str(CONFIGS / "fsdp2.yaml"), "script"])
    arguments, _, _ = _validate_launch_command(parsed)
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type is StateDictType.FULL_STATE_DICT
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is False
    policy = fsdp2_prepare_auto_wrap_policy(plugin, tiny.language_model())
    model = tiny.language_model()
    assert [name for name, module in model.named_modules() if policy(module)] == ["model.layers.0", "model.layers.1"]


def test_zero3_gathers_what_is_saved():
    read = load_config_from_file(str(CONFIGS / "deepspeed_zero3.yaml")).deepspeed_config
    assert (read["zero_stage"], read["zero3_save_16bit_model"], read["zero3_init_flag"]) == (3, True, True)
