"""What is read off a transformer's hidden states where it gives rewards, in float32 or better whatever its weights are
in: a logit rounded to 16 bits keeps two digits.

Released models have heads of their own kinds; each is built with the names that the checkpoint has for its weights, so
a checkpoint of another kind is told by what it lacks. The layouts follow the code that each model was released with;
none of that code is needed, nor run. Models that are trained here give values: linear ones, or of two tokens' logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from freeprm.errors import ModelError
from freeprm.models.batching import padded_ids
from freeprm.models.encoding import Encoded
from freeprm.models.packed_forward import Head, Reads, Tree, on_device, readout_of, row
from freeprm.models.packing import Index, Packed

Places = NDArray[np.integer]
"""Indices of tokens of one response, from 0."""


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


class LinearHead(nn.Module):
    """One number, w . h (+ b), under the name that a checkpoint has for the layer."""

    def __init__(self, config: PreTrainedConfig, name: str, *, bias: bool = False):
        super().__init__()
        outer, _, inner = name.partition(".")
        layer = nn.Linear(config.hidden_size, 1, bias=bias)
        self.add_module(outer, nn.ModuleDict({inner: layer}) if inner else layer)
        self._layer = name

    def forward(self, states: Tensor) -> Tensor:
        """(n, H) -> (n, 1)."""
        return self.get_submodule(self._layer)(states)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class ScoreHead(LinearHead):
    """`...ForSequenceClassification` of transformers with one label."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config, "score")


class RegressionHead(LinearHead):
    """EurusRewardModel's. Source: modeling_eurus_rm.py beside openbmb/Eurus-RM-7b."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config, "regression_head")


class ValueHead(LinearHead):
    """TRL's, whose dropout is for training. Source: model_utils/prm_model.py of SkyworkAI/skywork-o1-prm-inference."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config, "v_head.summary", bias=True)


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


class TokenLogits:
    """Logits of a few tokens, as a language model's own output head gives them.

    Args:
        tokens: C ids.
    """

    def __init__(self, *tokens: int):
        self.tokens = list(tokens)

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """(n, H) -> (n, C) float32 or better."""
        head, scale, cap = readout_of(model)
        bias = None if head.bias is None else head.bias[self.tokens]
        logits = scale * _product(hidden, head.weight[self.tokens], bias)
        return logits if cap is None else cap * (logits / cap).tanh()


class ValueReading(Head, Protocol):
    """What a value is of a hidden state, also of a model that reads no packed rows.

    A plain object, because what distributes a model takes tuples and dataclasses among its arguments apart.
    """

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """(n_total,) values from padded rows; see `padded_reads`."""
        ...


class LinearValue:
    """V = w . h, of transformers' ...ForSequenceClassification of one label: `score.weight`."""

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """See `Head`."""
        layer: Any = model.score  # of the head's adapter, where it has one
        return _product(hidden, layer.weight, None)[:, 0]

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """See `ValueReading`."""
        return padded_reads(model, batch, places, self)


class TokensValue:
    """V = logit(good) - logit(bad), of a language model's own output head.

    Args:
        good: id of the one token.
        bad: id of the other.
    """

    def __init__(self, good: int, bad: int):
        self._logits = TokenLogits(good, bad)

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """See `Head`."""
        return _difference(self._logits(model, hidden))

    def padded(self, model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
        """See `ValueReading`; of the logits that the model's own forward gives, however it makes them."""
        ids = padded_ids(batch).to(next(model.parameters()).device, non_blocking=True)  # (B, L)
        start = min(item.n_prompt for item in batch)
        kept = ids.shape[1] - start
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, -kept:]  # (B, kept, V)
        rows = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor([len(at) for at in places]))
        at = np.concatenate([item.n_prompt - start + where for item, where in zip(batch, places, strict=True)])
        return _difference(logits[rows, torch.from_numpy(at.astype(np.int64))][:, self._logits.tokens])


def packed_reads(model: nn.Module, packed: Packed, tree: Tree, places: Sequence[Places], head: Head) -> Tensor:
    """(n_total,) what a taught model's head says, response after response; where several share a token, once.

    Args:
        model: a taught model.
        packed: B responses.
        tree: of its segments.
        places: B of them; the state that has read the token there is asked for.
        head: see `Head`.
    """
    asked = [packed.answering[rows[at]] for rows, at in zip(packed.places, places, strict=True)]
    positions, back = np.unique(np.concatenate(asked), return_inverse=True)
    return _asked(model, row(packed, tree, _device(model)), positions, head).index_select(
        0, on_device(back, _device(model))
    )


def padded_reads(model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places], head: Head) -> Tensor:
    """(n_total,) the same from padded rows, of a model that answers where `Reads` ask."""
    ids = padded_ids(batch)  # (B, L)
    positions = np.concatenate([
        index * ids.shape[1] + item.n_prompt + at.astype(np.int64)
        for index, (item, at) in enumerate(zip(batch, places, strict=True))
    ])  # fmt: skip
    return _asked(model, {"input_ids": ids.to(_device(model), non_blocking=True), "use_cache": False}, positions, head)


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


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, H), (C, H) -> (n, C) in float32 or better: of a few rows it costs nothing."""
    with torch.autocast(hidden.device.type, enabled=False):
        wide = _wide(hidden)
        return functional.linear(wide, weight.to(wide.dtype), None if bias is None else bias.to(wide.dtype))


def _difference(logits: Tensor) -> Tensor:
    exact = _wide(logits)
    return exact[:, 0] - exact[:, 1]


def _wide(numbers: Tensor) -> Tensor:
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def _asked(model: nn.Module, rows: dict[str, Any], positions: Index, head: Head) -> Tensor:
    answers: Tensor = model(**rows, reads=Reads(on_device(positions, _device(model)), head))
    return answers


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
