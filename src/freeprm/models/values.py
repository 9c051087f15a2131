"""Values: the log-odds that a response is or will be right, read off one model at chosen tokens of it.

The other parameterisations of a reward, beside the log-ratio (`freeprm.models.logprobs`): outcome reward models with a
linear head, generative ones, and the process reward models that are trained on labels of steps. A value is read where
it is trained, off the state that has just read a token of the response itself: nothing is put into the text, and no
label is shifted. It is in logits (nats); one of 0 says that right and wrong are as likely.

Packing, batching and what is read once are those of log-probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from freeprm.errors import ConfigError, DataError, ModelError, NonFiniteError
from freeprm.models.batching import NOT_FINITE, Advance, first_not_finite, in_batches
from freeprm.models.encoding import Encoded
from freeprm.models.heads import LinearValue, Places, TokensValue, ValueReading, packed_reads
from freeprm.models.loading import (
    DEFAULT_OPTIONS,
    Backbone,
    LoadOptions,
    adapter_base,
    check_adapters,
    is_language_model,
    load_backbone,
    load_config,
    load_tokenizer,
    load_weights,
    resolve,
)
from freeprm.models.logprobs import distinct
from freeprm.models.packed_forward import Tree, core
from freeprm.models.packing import Index, pack
from freeprm.models.reward_config import LOG_RATIO, RewardConfig
from freeprm.models.routes import divide, read
from freeprm.types import Span

_HEAD, _SCORE = "freeprm_values", "score.weight"
READ_AT: Mapping[str, Callable[[Sequence[Span]], Index]] = {
    "steps": lambda tokens: np.array([span.stop - 1 for span in tokens], dtype=np.int64),
    "response": lambda tokens: np.array([tokens[-1].stop - 1], dtype=np.int64),
}
"""Which tokens of a response are read, by name, of the token ranges of its steps."""
PARAMETERISATIONS = ("linear", "tokens")
"""What a value may be of the hidden state; see `heads.ValueReading`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Valuation:
    """What a model's values are, and where they are read."""

    parameterisation: str
    """One of `PARAMETERISATIONS`."""
    read_at: str
    """A name in `READ_AT`: at the last token of each step, or of the response."""
    judgement: tuple[str, str] | None = None
    """The texts of the tokens good and bad, of "tokens"."""

    def __post_init__(self) -> None:
        if self.parameterisation not in PARAMETERISATIONS:
            raise ConfigError(
                f"parameterisation {self.parameterisation!r}: expected one of {', '.join(PARAMETERISATIONS)} for values"
            )
        if self.read_at not in READ_AT:
            raise ConfigError(f"read_at {self.read_at!r}: expected one of {', '.join(READ_AT)}")
        if (self.judgement is None) == (self.parameterisation == "tokens"):
            raise ConfigError(
                f"judgement {self.judgement}: expected the texts of two tokens with parameterisation 'tokens', and "
                "none with any other"
            )

    @property
    def name(self) -> str:
        """What to call models of it."""
        return f"{self.parameterisation} {self.read_at}"

    def places(self, tokens: Sequence[Span]) -> Index:
        """Where a response is read: (K,) indices of tokens, or (1,) of the last.

        Args:
            tokens: the token ranges of its K steps, which tile the response; see `freeprm.core.steps.token_spans`. A
                step without a token of its own is read where the one before it is.
        """
        return READ_AT[self.read_at](tokens)


def valuation_of(config: RewardConfig, *, source: str) -> Valuation:
    """The valuation that a reward.json records.

    Raises:
        ModelError: it is of a log-ratio, or of none that there is.
    """
    if config.parameterisation == LOG_RATIO:
        raise ModelError(
            f"{source}: an implicit process reward model, whose rewards are log-ratios and not values; score with "
            f"`freeprm score --prm {source}`, or load it with ImplicitPRM.from_pretrained"
        )
    try:
        return Valuation(
            parameterisation=config.parameterisation, read_at=str(config.read_at), judgement=config.judgement
        )
    except ConfigError as error:
        raise ModelError(f"{source}: reward.json: {error}") from error


def load_valued(
    source: str, valuation: Valuation, options: LoadOptions = DEFAULT_OPTIONS, *, fresh: bool = True
) -> Backbone:
    """Load a model that gives values: a classifier of one label, or a language model with two tokens to judge by.

    Args:
        source: see `load_backbone`; a language model, one that gives such values already, or an adapter of either.
        valuation: what they are.
        options: device, dtype and the like.
        fresh: whether "linear" gives a language model a head of zeros, to be trained. Where none is to be made, one
            that lacks it is refused: it must not be taken for one that has it.

    Raises:
        ModelError: another kind of model, one without a head where none is to be made, or a tokenizer to which a
            judgement is not one token.
    """
    head: ValueReading
    if valuation.judgement is None:
        backbone, head = _load_classifier(source, options, fresh=fresh), LinearValue()
    else:
        backbone = load_backbone(source, options)
        head = TokensValue(*judgement_tokens(backbone.tokenizer, valuation.judgement))
    setattr(core(backbone.model), _HEAD, head)
    return backbone


def token_values(model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> Tensor:
    """The value after each chosen token has been read, differentiable.

    Args:
        model: as `load_valued` gives it, possibly wrapped for distributed training; what wraps one comes after
            `routes.prepare`.
        batch: B prompts with responses.
        places: B arrays of indices into the tokens of each response, from 0.

    Returns:
        (n_total,) float32 (float64 for a float64 model), response after response.

    Raises:
        DataError: a place outside its response.
        ModelError: a model that was not loaded for values.
    """
    asked = _Asked.of(batch, places)
    flat, _ = _read(model, asked.unique, asked.wanted)
    return flat.index_select(0, torch.from_numpy(asked.found_at).to(flat.device))


@torch.inference_mode()
def score_values(
    model: nn.Module,
    encoded: Sequence[Encoded],
    places: Sequence[Places],
    *,
    token_budget: int | None = None,
    advance: Advance = lambda n_tokens, n_responses: None,
) -> list[Tensor]:
    """Values without gradients, in batches whose responses share what they can.

    Args:
        model: see `token_values`.
        encoded: any number of prompts with responses, in any order.
        places: see `token_values`.
        token_budget: see `score_tokens`.
        advance: see `batching.Advance`.

    Returns:
        One (n,) float32 tensor a response on the CPU, in the order given.

    Raises:
        DataError: a place outside its response.
        ModelError: a model that was not loaded for values.
        NonFiniteError: a value is NaN or infinite; names the response.
    """
    if not encoded:
        return []
    asked = _Asked.of(encoded, places)

    def read(rows: Sequence[int]) -> tuple[Sequence[Tensor], int]:
        part, wanted = [asked.unique[row] for row in rows], [asked.wanted[row] for row in rows]
        flat, n_tokens = _read(model, part, wanted)
        flat = flat.cpu()
        check_values(flat, part, wanted)
        return flat.split([len(at) for at in wanted]), n_tokens

    batches = divide(model, asked.unique, token_budget=token_budget, reads_logits=False)
    lengths = [len(item.ids) for item in asked.unique]
    results = in_batches(batches, read, lengths=lengths, advance=advance)
    flat = torch.cat([results[row] for row in range(len(asked.unique))])
    return list(flat[torch.from_numpy(asked.found_at)].split([len(at) for at in places]))


def check_values(values: Tensor, batch: Sequence[Encoded], places: Sequence[Places]) -> None:
    """Refuse NaN and infinite values.

    Args:
        values: (n_total,) as `token_values` gives them.
        batch: the responses that they are of.
        places: where they were read.

    Raises:
        NonFiniteError: names the response and the token.
    """
    bad = first_not_finite(values, [len(at) for at in places])
    if bad is not None:
        token = int(places[bad.row][bad.place])
        raise NonFiniteError(f"{batch[bad.row].name}: the value after its token {token} is {bad.value}; {NOT_FINITE}")


class _Asked(NamedTuple):
    """Each different response once, with all the places at which it is asked for."""

    unique: list[Encoded]
    wanted: list[Index]
    """Ascending, none twice."""
    found_at: Index
    """(n_total,) where each value that was asked for stands among those wanted."""

    @classmethod
    def of(cls, batch: Sequence[Encoded], places: Sequence[Places]) -> "_Asked":
        for item, at in zip(batch, places, strict=True):
            if len(at) and not 0 <= int(at.min()) <= int(at.max()) < item.n_response:
                raise DataError(
                    f"{item.name}: values are asked for at its tokens {at.min()} to {at.max()}, but it has "
                    f"{item.n_response}"
                )
        unique, rows = distinct(batch)
        of_row: list[list[Places]] = [[] for _ in unique]
        for row, at in zip(rows, places, strict=True):
            of_row[row].append(at)
        wanted = [np.unique(np.concatenate(parts)).astype(np.int64) for parts in of_row]
        starts = np.cumsum([0, *(len(at) for at in wanted)])
        found_at = [starts[row] + np.searchsorted(wanted[row], at) for row, at in zip(rows, places, strict=True)]
        return cls(unique, wanted, np.concatenate(found_at))


def _read(model: nn.Module, batch: Sequence[Encoded], places: Sequence[Places]) -> tuple[Tensor, int]:
    """(n_total,) values of a batch without repetitions, and the tokens that were read for them."""
    head: ValueReading | None = getattr(core(model), _HEAD, None)
    if head is None:
        raise ModelError(f"a {type(core(model)).__name__} that was not loaded for values; load it with load_valued")
    at_head: ValueReading = head

    def reading(is_packed: bool, rows: Sequence[int]) -> tuple[Tensor, int]:
        part, at = [batch[row] for row in rows], [places[row] for row in rows]
        if not is_packed:
            return at_head.padded(model, part, at), sum(len(item.ids) for item in part)
        packed = pack(part)
        return packed_reads(model, packed, Tree(packed.segments), at, at_head), len(packed)

    return read(model, batch, [len(at) for at in places], reading)


def _load_classifier(source: str, options: LoadOptions, *, fresh: bool) -> Backbone:
    folder = resolve(source)
    base = adapter_base(folder)
    if base:
        check_adapters(folder)
    whole = resolve(base.source, revision=base.revision) if base else folder
    config = load_config(whole, trust_remote_code=options.trust_remote_code)
    has_head = _has_head(config, source=str(whole))
    if not (has_head or fresh or base):
        raise _headless(source, config)
    model = _classifier(config, options, source=str(whole), lacks_head=not has_head)
    if base:
        model.load_adapter(str(folder))
        if not (has_head or fresh) and type(model.score) is nn.Linear:  # none came with the adapter
            raise _headless(source, config)
    tokenizer = load_tokenizer(folder, trust_remote_code=options.trust_remote_code, template_date=options.template_date)
    return Backbone(model=model.eval(), tokenizer=tokenizer, source=source, folder=folder)


def judgement_tokens(tokenizer: PreTrainedTokenizerBase, judgement: tuple[str, str]) -> tuple[int, int]:
    """The ids of the tokens good and bad.

    Raises:
        ModelError: a text that is not one token, or is unknown, or the same one for both.
    """
    good, bad = (_one_token(tokenizer, text) for text in judgement)
    if good == bad:
        raise ModelError(
            f"{tokenizer.name_or_path}: {judgement[0]!r} and {judgement[1]!r} are the same token, {good}; choose two "
            "texts that differ"
        )
    return good, bad


def _one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        how = "is unknown" if tokenizer.unk_token_id in ids else f"splits into {tokenizer.convert_ids_to_tokens(ids)}"
        raise ModelError(
            f"{tokenizer.name_or_path}: {text!r} {how}, but a value is the difference of the logits of two single "
            "tokens, good and bad; choose other texts with `judgement`"
        )
    return int(ids[0])


def _has_head(config: PreTrainedConfig, *, source: str) -> bool:
    """Raises: ModelError, for a model that is neither a classifier of one label nor a language model."""
    names = config.architectures or []
    if any("ForSequenceClassification" in name for name in names):
        if config.num_labels != 1:
            raise ModelError(
                f"{source}: a {names[0]} of {config.num_labels} labels; a value is one number, so expected one label"
            )
        return True
    if not is_language_model(config):
        raise ModelError(f"{source}: a {names[0]}; expected a ...ForSequenceClassification, or a causal language model")
    return False


def _headless(source: str, config: PreTrainedConfig) -> ModelError:
    name = (config.architectures or ["model of unknown architecture"])[0]
    return ModelError(
        f"{source}: a {name} without the head that values are read by ({_SCORE}); a language model gives no rewards by "
        "itself. Expected a folder that `freeprm train` wrote with parameterisation=linear"
    )


def _classifier(config: PreTrainedConfig, options: LoadOptions, *, source: str, lacks_head: bool) -> PreTrainedModel:
    """With a head of zeros, where the checkpoint lacks it."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not getattr(config, "auto_map", None):
        raise ModelError(
            f"{source}: transformers has no ...ForSequenceClassification of {config.model_type}; use "
            "parameterisation=tokens for this model"
        )
    config.num_labels = 1
    model = load_weights(
        AutoModelForSequenceClassification, resolve(source), options, config=config,
        may_lack=[_SCORE] if lacks_head else [], quiet=True,
    )  # fmt: skip
    head = getattr(model, "score", None)
    if type(head) is not nn.Linear or head.bias is not None or head.out_features != 1:
        raise ModelError(
            f"{source}: {type(model).__name__} has no head {_SCORE} of one output without bias; use "
            "parameterisation=tokens for this model"
        )
    if lacks_head:
        nn.init.zeros_(head.weight)
    return model
