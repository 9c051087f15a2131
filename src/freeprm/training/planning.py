"""Whether a training run fits GPUs that need not be here, and how long it takes on them, before anything is launched.

It is the forecast that training prints before it starts, for other devices: `forecast` says what is computed,
`footprint` what each device holds. The size of the data is that of rollouts, or of
numbers that are given; of the latter, the largest micro-batch is one in which all responses have `max_length` tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from transformers import TrainingArguments

from freeprm.errors import ConfigError
from freeprm.io.config import read_file, suggestion
from freeprm.models.memory import read_size
from freeprm.settings import LaunchSettings
from freeprm.training.footprint import MicroBatch, Spread
from freeprm.training.forecast import DataSize, Forecast, forecast
from freeprm.training.running import RolloutFiles, read_data
from freeprm.training.settings import TrainSettings, training_arguments
from freeprm.training.setup import TrainingSetup, set_up_training

_ASSETS = resources.files("freeprm.assets")
_LORA = 16


class Device(NamedTuple):
    """One GPU."""

    n_bytes: int
    """That a run may take of it."""
    flops: float
    """A second, at its peak in dense bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What a run takes of its GPUs."""

    launch: LaunchSettings
    device: Device
    forecast: Forecast
    mixed: bool
    """Matrices are multiplied in 16 bits, as the peak has it."""
    changes: tuple[str, ...] = ()
    """What would make it fit, all together, where it does not; nothing that is tried does if there are none."""

    @property
    def fits(self) -> bool | None:
        """None where it is not known what the optimizer keeps."""
        peak = self.forecast.footprint.peak
        return None if peak is None else peak <= self.device.n_bytes

    @property
    def gpu_hours(self) -> float:
        """Of training."""
        return self._gpu_hours(self.forecast.flops)

    @property
    def reference_gpu_hours(self) -> float:
        """Of the reference's pass before it."""
        return self._gpu_hours(self.forecast.reference_flops)

    @property
    def hours(self) -> float:
        """Of both, on all GPUs at once."""
        return (self.gpu_hours + self.reference_gpu_hours) / self.launch.gpus

    def _gpu_hours(self, flops: float) -> float:
        return flops / (self.device.flops * self.launch.mfu) / 3600


def plan_launch(settings: TrainSettings, launch: LaunchSettings, inputs: Sequence[Path] = ()) -> LaunchPlan:
    """What a run takes; no weights are needed, and without inputs no tokenizer.

    Args:
        settings: of the training; its model is a folder or a config.json, or one whose shape comes with freeprm.
        launch: the GPUs, and the size of the data where there are no inputs.
        inputs: graded rollouts.

    Raises:
        ConfigError: an unknown GPU, or no `max_length` where there are no inputs.
        FreePRMError: as for `train`.
    """
    device = _device(launch)
    # Of one process on the processor, whatever is here; `forecast` is told of the GPUs.
    settings = replace(settings, model=_shape(settings.model), trainer={**settings.trainer, "use_cpu": True})
    made = _planned(settings, launch, inputs, device)
    if made.fits is not False:
        return made
    found: dict[str, str] = {}
    best = made
    for change in _CHANGES:
        for how, text, settings_then, launch_then in change(settings, launch):
            then = _planned(settings_then, launch_then, inputs, device)
            if (then.forecast.footprint.peak or 0) < (best.forecast.footprint.peak or 0):
                best, settings, launch, found[how] = then, settings_then, launch_then, text
            if best.fits:
                return replace(made, changes=tuple(found.values()))
    return made


def _device(launch: LaunchSettings) -> Device:
    with resources.as_file(_ASSETS / "gpus.toml") as path:
        known = read_file(path)
    n_bytes = None if launch.max_memory is None else read_size(launch.max_memory)
    flops = None if launch.tflops is None else launch.tflops * 1e12
    if n_bytes and flops:
        return Device(n_bytes, flops)
    if launch.gpu not in known:
        raise ConfigError(
            f"gpu: {launch.gpu!r} is not known.{suggestion(launch.gpu, known)} Known are {', '.join(known)}; "
            "another one is given by --max-memory and --tflops"
        )
    kind = known[launch.gpu]
    return Device(n_bytes or int(kind["memory_gb"] * 1e9), flops or kind["tflops"] * 1e12)


def _shape(model: str) -> str:
    """The folder of a model's config.json: the file's own, or one that comes with freeprm; else the model as named."""
    path = Path(model).expanduser()
    if path.is_file() and path.name == "config.json":
        return str(path.parent)
    shipped = Path(str(_ASSETS / "shapes")) / model
    return str(shipped) if not path.exists() and (shipped / "config.json").exists() else model


def _planned(settings: TrainSettings, launch: LaunchSettings, inputs: Sequence[Path], device: Device) -> LaunchPlan:
    setup = set_up_training(settings)
    arguments = training_arguments(setup.settings, Path())
    return LaunchPlan(
        launch=launch, device=device, mixed=arguments.mixed_precision != "no",
        forecast=forecast(
            setup, arguments, _data_size(setup, arguments, launch, inputs),
            spread=Spread(n_devices=launch.gpus, sharding=launch.sharding, offload=launch.offload),
            loads_reference=not launch.cached_reference, on_cpu=False,
        ),
    )  # fmt: skip


def _data_size(
    setup: TrainingSetup, arguments: TrainingArguments, launch: LaunchSettings, inputs: Sequence[Path]
) -> DataSize:
    settings = setup.settings
    if inputs:
        files = RolloutFiles(inputs=inputs, columns=settings.columns, on_bad=settings.on_bad)
        return DataSize.of(read_data(setup, arguments, files, cache=None).examples, arguments)
    prompt, response, longest = launch.prompt_tokens, launch.response_tokens, settings.max_length
    if longest is None or longest < prompt + response:
        raise ConfigError(
            f"max_length: is {longest}; expected the tokens of the longest prompt with its response, at least "
            f"{prompt + response} as the means are: it decides the memory. Or give rollouts"
        )
    n_parts = math.ceil(launch.n / settings.group_size)  # of a group, each with its prompt
    rows = arguments.train_batch_size * math.ceil(launch.n / n_parts)
    n_targets = rows * (longest - prompt)
    n_tokens = launch.n_prompts * (n_parts * prompt + launch.n * response)
    return DataSize(
        n_prompts=launch.n_prompts * n_parts, n_responses=launch.n_prompts * launch.n, n_tokens=n_tokens,
        n_mismatched=n_tokens, mean_length=prompt + response, longest=longest,
        largest=MicroBatch(
            n_tokens=arguments.train_batch_size * prompt + n_targets, n_targets=n_targets, n_padded=rows * longest
        ),
    )  # fmt: skip


class Change(NamedTuple):
    """Another way to run it."""

    of: str
    """What is changed; a later change of it replaces this one."""
    text: str
    settings: TrainSettings
    launch: LaunchSettings


def _sharded(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    for name in ("fsdp2", "deepspeed_zero3"):
        if launch.sharding != name:
            yield Change("sharding", f"--sharding {name}", settings, replace(launch, sharding=name))


def _without_reference(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    if settings.with_reference and settings.reference is None:
        text = "--no-reference, or its log-probabilities in --cache, from GPUs that hold it (--cached-reference)"
        yield Change("reference", text, replace(settings, with_reference=False), launch)


def _recomputed(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    trainer = {**settings.trainer, "gradient_checkpointing": True}
    yield Change("activations", "--set trainer.gradient_checkpointing=true", replace(settings, trainer=trainer), launch)


def _smaller(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    trainer = {**settings.trainer, "per_device_train_batch_size": 1}
    text = "--set trainer.per_device_train_batch_size=1, with as many times the accumulation"
    yield Change("batch", text, replace(settings, trainer=trainer), launch)
    for size in (4, 2, 1):
        if size < settings.group_size:
            smaller = replace(settings, group_size=size, trainer=trainer)
            yield Change("group", f"--set group_size={size}", smaller, launch)


def _offloaded(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    if launch.sharding != "ddp":
        yield Change("offload", "--offload", settings, replace(launch, offload=True))


def _adapted(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    if not settings.lora:
        yield Change("adapters", f"--lora {_LORA}", replace(settings, lora=_LORA), launch)


def _on_more(settings: TrainSettings, launch: LaunchSettings) -> Iterator[Change]:
    for times in (2, 4, 8):
        yield Change("gpus", f"--gpus {times * launch.gpus}", settings, replace(launch, gpus=times * launch.gpus))


_CHANGES = (_sharded, _without_reference, _recomputed, _smaller, _on_more, _offloaded, _adapted)
"""In the order in which they are tried: what changes neither result nor time comes first."""
