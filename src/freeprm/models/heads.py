"""The heads that released reward models have on their transformer, and their weights, read without anyone's code.

A head takes the last hidden states at the positions that a recipe asks for, and nothing else of the sequence, and
computes in float32 whatever the transformer's weights are in: a logit rounded to 16 bits keeps two digits. Each is
built with the names that the checkpoint has for its weights, so a checkpoint of another kind is told by what it lacks.
The layouts follow the code that each model was released with; none of that code is needed, nor run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from freeprm.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a kind of checkpoint is told, and what its head is."""

    architectures: tuple[str, ...]
    """Names in config.json, with `*` for any text."""
    build: Callable[[PreTrainedConfig], nn.Module]
    """The head with the checkpoint's own names of weights; (n, H) states -> (m, C) outputs."""
    auto_class: str = "AutoModel"
    """The entry of config.json's `auto_map` under which the checkpoint may bring code of its own."""
    base_type: str | None = None
    """What the transformer is where config.json names a model type that transformers does not know."""


def output_width(layout: Layout, config: PreTrainedConfig) -> int:
    """Numbers that a layout's head gives at one position (the gated one's: two), found without holding its weights."""
    with torch.device("meta"):
        outputs: Tensor = layout.build(config)(torch.empty(2, config.hidden_size))
    return outputs.shape[-1]


class ScoreHead(nn.Module):
    """score = w · h: `...ForSequenceClassification` of transformers with one label."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, 1)."""
        return self.score(states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class RegressionHead(nn.Module):
    """score = w · h under EurusRewardModel's name.

    Source: modeling_eurus_rm.py beside openbmb/Eurus-RM-7b.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.regression_head = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, 1)."""
        return self.regression_head(states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class TwoLabelHead(nn.Module):
    """Logits of two labels from one hidden layer: Qwen2ForProcessRewardModel.

    Source: modeling_qwen2_rm.py beside Qwen/Qwen2.5-Math-PRM-7B; the same in vLLM's qwen2_rm.py.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        hidden = config.hidden_size
        self.score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, 2)."""
        return self.score(states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class ValueHead(nn.Module):
    """value = w · h + b under TRL's names; its dropout is for training.

    Source: model_utils/prm_model.py of SkyworkAI/skywork-o1-prm-inference.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, 1)."""
        return self.v_head["summary"](states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class GatedHead(nn.Module):
    """score = g(h_prompt) · (R h_last) T: objectives R, decorrelated by T, weighted by a gate that sees the prompt.

    Source: modeling_custom.py beside RLHFlow/ArmoRM-Llama3-8B-v0.1; Wang et al. 2024, arXiv:2406.12845.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        hidden, n_objectives = config.hidden_size, getattr(config, "num_objectives", 19)
        width, depth = getattr(config, "gating_hidden_dim", 1024), getattr(config, "gating_n_hidden", 3)
        self.temperature = getattr(config, "gating_temperature", 10)
        self.regression_layer = nn.Linear(hidden, n_objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(n_objectives), requires_grad=False)
        self.gating = _Gate([hidden, *[width] * depth, n_objectives])

    def forward(self, states: Tensor) -> Tensor:
        """(2 n, H), the state at the prompt's end and the last one in turn -> (n, 1)."""
        prompt, last = states.reshape(-1, 2, states.shape[-1]).unbind(1)
        weights: Tensor = (self.gating(prompt) / self.temperature).softmax(-1) * self.gating.logit_scale
        objectives: Tensor = self.regression_layer(last) @ self.reward_transform_matrix
        return (weights * objectives).sum(-1, keepdim=True)


class _Gate(nn.Module):
    """Layers with ReLU between them."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, states: Tensor) -> Tensor:
        *hidden, final = list(self.layers)
        for layer in hidden:
            states = layer(states).relu()
        return final(states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class TokenHead(nn.Module):
    """Logits of a few tokens, as the language model's own output head gives them.

    Args:
        head: the output head.
        tokens: C ids.
        scale: what the model multiplies its logits by.
        cap: what it bounds them to by tanh, if anything.
    """

    def __init__(self, head: nn.Linear, tokens: tuple[int, ...], *, scale: float, cap: float | None):
        super().__init__()
        self.head, self.tokens, self.scale, self.cap = head, list(tokens), scale, cap

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, C)."""
        bias = None if self.head.bias is None else self.head.bias[self.tokens].to(states.dtype)
        logits = functional.linear(states, self.head.weight[self.tokens].to(states.dtype), bias) * self.scale
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()


def load_head(head: nn.Module, folder: Path, *, wanted: str) -> nn.Module:
    """Fill a head with a checkpoint's weights.

    Args:
        head: as `Layout.build` gives it.
        folder: the checkpoint.
        wanted: what it should be, for messages.

    Raises:
        ModelError: the checkpoint lacks a weight of the head, or has it in another shape.
    """
    shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    stored = _tensors(folder, set(shapes))
    for name, shape in shapes.items():
        if name not in stored:
            raise ModelError(
                f"{folder}: no weight {name}, which {wanted} has; a language model, or a checkpoint of another kind, "
                "has no such head and gives no rewards"
            )
        if stored[name].shape != shape:
            raise ModelError(
                f"{folder}: {name} is {tuple(stored[name].shape)}, but {wanted} has {tuple(shape)}; a checkpoint of "
                "another kind"
            )
    head.load_state_dict(stored)
    return head


def _tensors(folder: Path, names: set[str]) -> dict[str, Tensor]:
    """The weights of these names, from safetensors or, in older repositories, pickles without code."""
    found: dict[str, Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    try:
        for file in files:
            with safe_open(file, framework="pt") as shard:
                found.update({name: shard.get_tensor(name) for name in names & set(shard.keys())})
        for file in [] if files else sorted(folder.glob("pytorch_model*.bin")):
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            found.update({name: state[name] for name in names & set(state)})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder}: the weights cannot be read ({error})") from error
    return found
