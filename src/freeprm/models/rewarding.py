"""Released reward models, loaded for reading: a transformer, a head on it, and the states at chosen positions."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.batching import in_batches, padded_batches, padded_ids
from freeprm.models.heads import Layout, TokenHead, load_head, output_width
from freeprm.models.lengths import forget_lengths
from freeprm.models.loading import LoadOptions, context_length, load_backbone, load_config, load_tokenizer, resolve
from freeprm.models.routes import groups
from freeprm.models.scoring_input import ScoringInput

_CPU_BUDGET, _GPU_BUDGET = 4096, 16_384  # tokens in a batch, padding included


class Answers(Protocol):
    """A model that is asked at positions of a few rows."""

    def __call__(self, batch: Sequence[ScoringInput]) -> Tensor:
        """(m, C) outputs, response after response, on the CPU in float32."""
        ...

    def together(self, lengths: Sequence[int]) -> list[list[int]]:
        """Of rows of these lengths those that may share a batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """A reward model with its tokenizer, and where it came from."""

    answers: Answers
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: str
    folder: Path
    own_code: bool = False
    """Whether it runs code that its folder brought along."""

    @property
    def max_length(self) -> int:
        """Tokens that the model's context holds."""
        return context_length(self.config)

    @property
    def shape(self) -> ModelShape:
        """What decides the cost of a token; a head that is read at a few positions is left out."""
        config = self.config.get_text_config()
        whole = ModelShape.of(config)
        return ModelShape(
            n_parameters=whole.n_parameters - config.hidden_size * config.vocab_size,
            n_layers=whole.n_layers, attention_width=whole.attention_width,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Headed:
    """A transformer under a head, reading rows padded on the right.

    Under a causal mask no position can see the padding after it, so none is masked, and any token may be padding.
    """

    core: PreTrainedModel
    head: nn.Module

    def __call__(self, batch: Sequence[ScoringInput]) -> Tensor:
        ids = padded_ids(batch).to(self.core.device)
        hidden = self.core(input_ids=ids, use_cache=False).last_hidden_state  # (B, L, H)
        rows = [row for row, item in enumerate(batch) for _ in item.positions]
        at = [position for item in batch for position in item.positions]
        outputs: Tensor = self.head(hidden[rows, at].float())
        return outputs.cpu()

    def together(self, lengths: Sequence[int]) -> list[list[int]]:
        """See `Answers`."""
        return [group.rows for group in groups(self.core, lengths)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Foreign:
    """A model that runs its own code: one response at a time, because nothing is known of how it treats padding."""

    model: PreTrainedModel
    width: int
    """What the recipe's head gives at one position."""

    def __call__(self, batch: Sequence[ScoringInput]) -> Tensor:
        return torch.cat([self._one(item) for item in batch])

    def together(self, lengths: Sequence[int]) -> list[list[int]]:
        """See `Answers`; all, since none is read beside another."""
        return [list(range(len(lengths)))]

    def _one(self, item: ScoringInput) -> Tensor:
        ids = torch.from_numpy(item.ids).long()[None].to(self.model.device)
        given = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        output = given if isinstance(given, Tensor) else getattr(given, "score", None)
        if output is None:
            output = given.logits if hasattr(given, "logits") else given[0]
        if item.steps:  # one output a token: (1, L, C), or (1, L)
            if output.numel() != len(item.ids) * self.width:
                raise ModelError(
                    f"{item.name}: the model gives {tuple(output.shape)} numbers for {len(item.ids)} tokens, where "
                    f"{self.width} a token are expected; a language model's logits are no rewards"
                )
            return output.float().reshape(len(item.ids), -1)[list(item.positions)].cpu()
        if output.numel() != 1:
            raise ModelError(f"the model gives {tuple(output.shape)} numbers for one response, where one is expected")
        return output.float().reshape(1, 1).cpu()


def load_reward_model(source: str, layout: Layout, options: LoadOptions, *, recipe: str) -> RewardModel:
    """Load a checkpoint with a reward head.

    The head is ours, with the checkpoint's weights. Where `options.trust_remote_code` is given and the folder brings
    code of its own, that is run instead.

    Raises:
        ModelError: a checkpoint of another kind, one that only its own code can read, or one with weights missing.
    """
    folder = resolve(source)
    stored = _stored_config(folder)
    names = stored.get("architectures") or ["unnamed architecture"]
    own = (stored.get("auto_map") or {}).get(layout.auto_class)
    if own and options.trust_remote_code:
        model = _load(getattr(transformers, layout.auto_class), folder, options)
        answers = _Foreign(model=model, width=output_width(layout, model.config.get_text_config()))
        return _made(answers, model, folder, options, own_code=True)
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
    core = _load(AutoModel, folder, replace(options, trust_remote_code=False), config=config)
    headed = _Headed(core=core, head=head.to(core.device, torch.float32).eval())
    return _made(headed, core, folder, options)


def load_token_model(source: str, tokens: tuple[int, ...], options: LoadOptions, *, recipe: str) -> RewardModel:
    """Load a language model whose logits of a few tokens are its judgement.

    Raises:
        ModelError: not a causal language model, one whose output head cannot be read by itself, or a smaller
            vocabulary than the tokens need.
    """
    folder = resolve(source)
    names = _stored_config(folder).get("architectures") or []
    if names and "ForCausalLM" not in names[0] and "LMHeadModel" not in names[0]:
        raise ModelError(f"{folder}: a {names[0]}, but {recipe} is a causal language model that names its judgement")
    backbone = load_backbone(source, options)
    model, config = backbone.model, backbone.model.config.get_text_config()
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or model.base_model is model:
        raise ModelError(
            f"{folder}: the output head of {type(model).__name__} cannot be read by itself; merge adapters"
        )
    if max(tokens) >= head.out_features:
        raise ModelError(f"{folder}: {head.out_features} tokens, but {recipe} reads the logit of token {max(tokens)}")
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    core: Any = model.base_model
    answers = _Headed(core=core, head=TokenHead(head, tokens, scale=scale, cap=cap))
    return RewardModel(
        answers=answers, config=model.config, tokenizer=backbone.tokenizer, device=model.device, dtype=backbone.dtype,
        folder=backbone.folder,
    )  # fmt: skip


@torch.inference_mode()
def read_marked(
    model: RewardModel,
    items: Sequence[ScoringInput],
    *,
    n_outputs: Callable[[ScoringInput], int],
    token_budget: int | None = None,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> list[Tensor]:
    """Outputs of the head for each response, in batches of similar length.

    Args:
        model: a loaded model.
        items: any number, in any order.
        n_outputs: how many rows of output an item has.
        token_budget: tokens in a batch with its padding; a single longer row is a batch of its own.
        advance: told the tokens of each batch, without padding.

    Returns:
        One (m, C) float32 tensor a response, in the order given.

    Raises:
        NonFiniteError: an output is NaN or infinite; names the response.
    """

    def read(rows: Sequence[int]) -> tuple[Sequence[Tensor], int]:
        part = [items[row] for row in rows]
        outputs = model.answers(part).split([n_outputs(item) for item in part])
        for item, output in zip(part, outputs, strict=True):
            if not bool(output.isfinite().all()):
                raise NonFiniteError(
                    f"{item.name}: the model gives {output.flatten().tolist()[:4]}; its weights or its dtype are at "
                    "fault (float16 overflows where bfloat16 does not)"
                )
        return outputs, sum(len(item.ids) for item in part)

    budget = token_budget or (_CPU_BUDGET if model.device.type == "cpu" else _GPU_BUDGET)
    batches = (
        [rows[place] for place in batch]
        for rows in model.answers.together([len(item.ids) for item in items])
        for batch in padded_batches([items[row] for row in rows], token_budget=budget)
    )
    results = in_batches(batches, read, advance=lambda n_tokens, n_responses: advance(n_tokens))
    return [results[row] for row in range(len(items))]


def _stored_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands; empty for an adapter's folder, whose base decides."""
    path = folder / "config.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    return stored


def _config(folder: Path, stored: dict[str, Any], layout: Layout) -> PreTrainedConfig:
    """The transformer's configuration, read without the checkpoint's code."""
    if layout.base_type is None or stored.get("model_type") in transformers.CONFIG_MAPPING:
        return load_config(folder)
    plain = {name: value for name, value in stored.items() if name not in ("model_type", "auto_map")}
    config: PreTrainedConfig = AutoConfig.for_model(layout.base_type, **plain)
    return config


def _load(kind: Any, folder: Path, options: LoadOptions, *, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """A transformer of which nothing is missing; what else the checkpoint holds is its head's."""
    given = {} if config is None else {"config": config}
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it would warn of the head's weights, which are read elsewhere
    try:
        model, told = kind.from_pretrained(
            folder, dtype=options.dtype, attn_implementation=options.attention,
            trust_remote_code=options.trust_remote_code, output_loading_info=True, **given,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded ({type(error).__name__}: {error})") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if told["missing_keys"]:
        missing = sorted(told["missing_keys"])
        raise ModelError(f"{folder}: the checkpoint lacks {len(missing)} weights, first {missing[0]}")
    loaded: PreTrainedModel = model.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    forget_lengths(loaded)
    return loaded


def _made(
    answers: Answers, model: PreTrainedModel, folder: Path, options: LoadOptions, *, own_code: bool = False
) -> RewardModel:
    return RewardModel(
        answers=answers, config=model.config, device=model.device, dtype=str(model.dtype).removeprefix("torch."),
        tokenizer=load_tokenizer(folder, trust_remote_code=options.trust_remote_code), folder=folder, own_code=own_code,
    )  # fmt: skip
