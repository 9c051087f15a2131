"""Released reward models, loaded for reading: a transformer, a head on it, and the states at chosen positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.batching import Advance, in_batches, padded_batches, padded_ids
from freeprm.models.heads import Layout, TokenLogits, load_head, output_width
from freeprm.models.loading import (
    Backbone,
    LoadOptions,
    load_backbone,
    load_config,
    load_tokenizer,
    load_weights,
    resolve,
)
from freeprm.models.reward_config import stored_config
from freeprm.models.routes import passes
from freeprm.models.scoring_input import ScoringInput

_CPU_BUDGET, _GPU_BUDGET = 4096, 16_384  # tokens in a batch, padding included


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """A reward model, and how its numbers are read."""

    backbone: Backbone
    """A transformer, a language model, or whatever the checkpoint's own code makes."""
    head: Callable[[Tensor], Tensor] | None
    """(m, H) states -> (n, C) outputs, float32; None of one that runs its own code."""
    width: int = 1
    """C, of one that runs its own code: the numbers that are expected at one position."""


def load_reward_model(source: str, layout: Layout, options: LoadOptions, *, recipe: str) -> RewardModel:
    """Load a checkpoint with a reward head.

    The head is ours, with the checkpoint's weights. Where `options.trust_remote_code` is given and the folder brings
    code of its own, that is run instead.

    Raises:
        ModelError: a checkpoint of another kind, one that only its own code can read, or one with weights missing.
    """
    folder = resolve(source)
    stored = stored_config(folder)
    names = stored.get("architectures") or ["unnamed architecture"]
    own = (stored.get("auto_map") or {}).get(layout.auto_class)
    if own and options.trust_remote_code:
        model = load_weights(getattr(transformers, layout.auto_class), folder, options, quiet=True)
        width = output_width(layout, model.config.get_text_config())
        return RewardModel(backbone=_backbone(model, source, folder, options), head=None, width=width)
    if not any(fnmatchcase(names[0], pattern) for pattern in layout.architectures):
        expected = " or ".join(layout.architectures)
        if own:
            raise ModelError(
                f"{folder}: a {names[0]}, which is defined by code that the checkpoint brings along ({own}), and that "
                f"code is not run unasked; {recipe} reads {expected}. If you trust it: --trust-remote-code"
            )
        raise ModelError(
            f"{folder}: a {names[0]}, but {recipe} is a {expected}; a model without that head has no rewards to give"
        )
    config = _config(folder, stored, layout)
    head = load_head(layout.build(config.get_text_config()), folder, wanted=f"{recipe} ({names[0]})")
    model = load_weights(AutoModel, folder, replace(options, trust_remote_code=False), config=config, quiet=True)
    head = head.to(model.device, torch.float32).eval()
    return RewardModel(backbone=_backbone(model, source, folder, options), head=head)


def load_token_model(source: str, tokens: tuple[int, ...], options: LoadOptions, *, recipe: str) -> RewardModel:
    """Load a language model whose logits of a few tokens are its judgement.

    Raises:
        ModelError: not a causal language model, one whose output head cannot be read by itself, or a smaller
            vocabulary than the tokens need.
    """
    folder = resolve(source)
    names = stored_config(folder).get("architectures") or []
    if names and "ForCausalLM" not in names[0] and "LMHeadModel" not in names[0]:
        raise ModelError(f"{folder}: a {names[0]}, but {recipe} is a causal language model that names its judgement")
    backbone = load_backbone(source, options)
    model, output = backbone.model, backbone.model.get_output_embeddings()
    if type(output) is not nn.Linear or model.base_model is model:
        raise ModelError(
            f"{folder}: the output head of {type(model).__name__} cannot be read by itself; merge adapters"
        )
    if max(tokens) >= output.out_features:
        raise ModelError(f"{folder}: {output.out_features} tokens, but {recipe} reads the logit of token {max(tokens)}")
    return RewardModel(backbone=backbone, head=partial(TokenLogits(*tokens), model))


@torch.inference_mode()
def read_marked(
    model: RewardModel,
    items: Sequence[ScoringInput],
    *,
    n_outputs: Callable[[ScoringInput], int],
    token_budget: int | None = None,
    advance: Advance = lambda n_tokens, n_responses: None,
) -> list[Tensor]:
    """Outputs of the head for each response, in batches of similar length.

    Args:
        model: a loaded model.
        items: any number, in any order.
        n_outputs: how many rows of output an item has.
        token_budget: tokens in a batch with its padding; a single longer row is a batch of its own.
        advance: see `batching.Advance`; padding is left out.

    Returns:
        One (m, C) float32 tensor a response, in the order given.

    Raises:
        NonFiniteError: an output is NaN or infinite; names the response.
    """

    transformer: Any = model.backbone.model.base_model  # of itself, where it has no head

    def read(rows: Sequence[int]) -> tuple[Sequence[Tensor], int]:
        part = [items[row] for row in rows]
        if model.head:
            outputs = _at_head(transformer, model.head, part).split([n_outputs(item) for item in part])
        else:
            outputs = tuple(_by_own_code(model.backbone.model, item, width=model.width) for item in part)
        for item, output in zip(part, outputs, strict=True):
            if not bool(output.isfinite().all()):
                raise NonFiniteError(
                    f"{item.name}: the model gives {output.flatten().tolist()[:4]}; its weights or its dtype are at "
                    "fault (float16 overflows where bfloat16 does not)"
                )
        return outputs, sum(len(item.ids) for item in part)

    lengths = [len(item.ids) for item in items]
    # Nothing is known of how a checkpoint's own code treats its neighbours: there they are read one by one.
    together = [one.rows for one in passes(transformer, lengths)] if model.head else [list(range(len(items)))]
    budget = token_budget or (_CPU_BUDGET if transformer.device.type == "cpu" else _GPU_BUDGET)
    batches = (
        [rows[place] for place in batch]
        for rows in together
        for batch in padded_batches([items[row] for row in rows], token_budget=budget)
    )
    results = in_batches(batches, read, lengths=lengths, advance=advance)
    return [results[row] for row in range(len(items))]


def _at_head(core: Any, head: Callable[[Tensor], Tensor], batch: Sequence[ScoringInput]) -> Tensor:
    """(m, C) outputs, response after response, on the CPU in float32, from rows padded on the right.

    Under a causal mask no position can see the padding after it, so none is masked, and any token may be padding.
    """
    hidden = core(input_ids=padded_ids(batch).to(core.device), use_cache=False).last_hidden_state  # (B, L, H)
    rows = [row for row, item in enumerate(batch) for _ in item.positions]
    at = [position for item in batch for position in item.positions]
    return head(hidden[rows, at].float()).cpu()


def _by_own_code(model: Any, item: ScoringInput, *, width: int) -> Tensor:
    """The same of one response, by a model that runs its own code."""
    ids = torch.from_numpy(item.ids).long()[None].to(model.device)
    given = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    output = given if isinstance(given, Tensor) else getattr(given, "score", None)
    if output is None:
        output = given.logits if hasattr(given, "logits") else given[0]
    if item.steps:  # one output a token: (1, L, C), or (1, L)
        if output.numel() != len(item.ids) * width:
            raise ModelError(
                f"{item.name}: the model gives {tuple(output.shape)} numbers for {len(item.ids)} tokens, where "
                f"{width} a token are expected; a language model's logits are no rewards"
            )
        return output.float().reshape(len(item.ids), -1)[list(item.positions)].cpu()
    if output.numel() != 1:
        raise ModelError(f"the model gives {tuple(output.shape)} numbers for one response, where one is expected")
    return output.float().reshape(1, 1).cpu()


def _config(folder: Path, stored: dict[str, Any], layout: Layout) -> PreTrainedConfig:
    """The transformer's configuration, read without the checkpoint's code."""
    if layout.base_type is None or stored.get("model_type") in transformers.CONFIG_MAPPING:
        return load_config(folder)
    plain = {name: value for name, value in stored.items() if name not in ("model_type", "auto_map")}
    config: PreTrainedConfig = AutoConfig.for_model(layout.base_type, **plain)
    return config


def _backbone(model: PreTrainedModel, source: str, folder: Path, options: LoadOptions) -> Backbone:
    tokenizer = load_tokenizer(folder, trust_remote_code=options.trust_remote_code)
    return Backbone(model=model.eval(), tokenizer=tokenizer, source=source, folder=folder)
