"""Training as a person follows it: a bar and a line for each log, on stderr, so that stdout stays the command's own."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from freeprm.io.progress import Advance, bar

_SHOWN = {
    "loss": "loss {:.4f}", "sign_accuracy": "sign accuracy {:.3f}", "step_accuracy": "step accuracy {:.3f}",
    "reward_right": "right {:+.3f}", "reward_wrong": "wrong {:+.3f}", "margin": "margin {:+.3f}",
    "kl_to_reference": "KL {:.3f}", "grad_norm": "gradient {:.3g}", "learning_rate": "lr {:.2g}",
}  # fmt: skip


class ConsoleCallback(TrainerCallback):
    """Shows progress and logs, and has the last step logged too. Use it in a `with` around the training."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._advance: Advance | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, with the steps of an interrupted run behind it."""
        if state.is_world_process_zero:
            self._advance = self._open.enter_context(bar("train", state.max_steps, unit="steps"))
            self._advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        if self._advance:
            self._advance(1)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Print one line."""
        line = described(logs or {})
        if line and state.is_world_process_zero:
            print(f"step {state.global_step}/{state.max_steps}  {line}", file=sys.stderr)


def described(logs: Mapping[str, float]) -> str:
    """One line of a training or evaluation log; empty where there is nothing to tell."""
    prefix = "eval_" if "eval_loss" in logs else ""
    shown = [form.format(logs[prefix + key]) for key, form in _SHOWN.items() if prefix + key in logs]
    return ("dev  " if prefix else "") + "  ".join(shown) if shown else ""
