"""Log-probabilities and step rewards of responses read piece by piece, the next piece of several at a time.

What has been read is kept as keys and values, a slot for each token in each layer. Responses share their prompt's
slots, and those of any pieces that they begin with alike; a response that is not read on costs nothing more. A forward
pass gathers, for each row, the slots of what stands before its piece, with padding on the left, as in batched
generation: positions and distances are those of a row of its own.

The numbers are those from whole responses (see `core.rewards`), up to the rounding of another batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, check_reward
from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.encoding import Encoded, Ints
from freeprm.models.kv_cache import Slots, SlotTable, n_kept_layers, plain_layers
from freeprm.models.lengths import alike, forget_lengths, last_of_kind
from freeprm.models.loading import Backbone
from freeprm.models.output_head import give_float32_logits
from freeprm.types import Span

_CPU_BUDGET, _GPU_BUDGET = 4096, 65_536  # tokens in a forward pass, with what is gathered before them
_LOGIT_BYTES = 512 << 20  # of logits in float32 held at a time
_NO_SLOTS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A prompt, with what was read of it and its responses."""

    ids: Ints
    read: dict[bytes, Slots] = field(default_factory=dict)
    """By the ids of a beginning of prompt and response, the slots of all its tokens but the last, which is read with
    the next piece."""
    logprobs: dict[tuple[int, bytes], Tensor] = field(default_factory=dict)
    """By where a piece starts, and the ids up to where it stops."""
    owned: list[Slots] = field(default_factory=list)
    """Each slot once."""


class Piece(NamedTuple):
    """Tokens [start, stop) of a response, counted with its prompt's, whose log-probabilities are wanted."""

    prompt: Prompt
    ids: Ints
    """Of prompt and response, up to `stop` at least."""
    start: int
    """The prompt's end, or the end of a piece that was read before."""
    stop: int


class _Row(NamedTuple):
    """A row of a forward pass: tokens to read behind those that were read."""

    past: Slots
    ids: Ints
    """(C,)"""
    following: Ints
    """(C,) the token behind each, or none where no log-probability is wanted."""


class IncrementalReader:
    """Reads responses piece by piece with one causal language model.

    Args:
        model: any whose layers all attend to keys and values that they keep; by sliding windows too, of which all is
            kept here.
        name: of the model, for messages.

    Raises:
        ModelError: the model keeps its state in another way.
    """

    def __init__(self, model: PreTrainedModel, *, name: str):
        give_float32_logits(model)
        forget_lengths(model)
        self._model, self._name = model, name
        self._n_layers = _n_layers(model, name)
        self._slots = SlotTable(model.device)
        on_cpu = model.device.type == "cpu"
        self._budget = _CPU_BUDGET if on_cpu else _GPU_BUDGET
        self._max_positions = max(1, _LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size))
        self.n_tokens = 0
        """Tokens that went through the model so far, prompts included and padding not."""
        one = np.zeros(1, dtype=np.int32)  # a token on trial shows what the model keeps, and how large it is
        ((trial, _),) = self._forward([_Row(_NO_SLOTS, one, one[:0])])
        self._slots.free(trial)
        self.n_tokens = 0
        self.capacity = self._slots.capacity
        """Tokens, of prompts and responses, that there is memory for."""

    def read(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """log pi(y_t | x, y_<t) of each piece's tokens; what was read before, or is asked for twice, is read once.

        Returns:
            For each piece (stop - start,) float32 on the CPU (float64 for a float64 model).

        Raises:
            ModelError: the model reads a response's beginning otherwise once all of it is there.
        """
        for piece in pieces:
            self._check_kind(piece)
        self._open([piece.prompt for piece in pieces])
        new = {(id(piece.prompt), _key(piece)): piece for piece in pieces if _key(piece) not in piece.prompt.logprobs}
        rows = [_row(piece) for piece in new.values()]
        for piece, row, (slots, logprobs) in zip(new.values(), rows, self._pass(rows), strict=True):
            prompt, (start, ids) = piece.prompt, _key(piece)
            prompt.logprobs[start, ids] = logprobs
            prompt.read.setdefault(ids, np.concatenate([row.past, slots]))
            prompt.owned.append(slots)
        return [piece.prompt.logprobs[_key(piece)] for piece in pieces]

    def close(self, prompt: Prompt) -> None:
        """Forget a prompt and its responses; their slots are used again."""
        for slots in prompt.owned:
            self._slots.free(slots)
        for kept in (prompt.owned, prompt.read, prompt.logprobs):
            kept.clear()

    def _open(self, prompts: Sequence[Prompt]) -> None:
        """Read prompts that are new, but for their last tokens, which are read with the responses' first pieces."""
        for prompt in {id(prompt): prompt for prompt in prompts if not prompt.read}.values():
            ((slots, _),) = self._pass([_Row(_NO_SLOTS, prompt.ids[:-1], prompt.ids[:0])])
            prompt.read[prompt.ids.tobytes()] = slots
            prompt.owned.append(slots)

    def _pass(self, rows: Sequence[_Row]) -> list[tuple[Slots, Tensor]]:
        """The new tokens' slots and log-probabilities of each row, in batches of similar length."""
        results: list[tuple[Slots, Tensor]] = [(_NO_SLOTS, torch.empty(0))] * len(rows)
        for batch in self._batches(rows):
            for index, result in zip(batch, self._forward([rows[index] for index in batch]), strict=True):
                results[index] = result
        return results

    def _batches(self, rows: Sequence[_Row]) -> Iterator[list[int]]:
        present = [index for index, row in enumerate(rows) if len(row.ids)]
        for part in alike(present, self._model.config, length=lambda at: len(rows[at].past) + len(rows[at].ids)):
            yield from self._fitting(part, rows)

    def _fitting(self, part: Sequence[int], rows: Sequence[_Row]) -> Iterator[list[int]]:
        batch: list[int] = []
        width = past = 0
        for index in sorted(part, key=lambda index: -len(rows[index].ids)):
            width, past = max(width, len(rows[index].ids)), max(past, len(rows[index].past))
            n_rows = len(batch) + 1
            if batch and (n_rows * (width + past) > self._budget or n_rows * width > self._max_positions):
                yield batch
                batch, width, past = [], len(rows[index].ids), len(rows[index].past)
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _forward(self, rows: Sequence[_Row]) -> list[tuple[Slots, Tensor]]:
        lengths, pasts = [len(row.ids) for row in rows], [len(row.past) for row in rows]
        width, past = max(lengths), max(pasts)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        places = np.zeros((len(rows), past), dtype=np.int64)  # slot 0 is padding
        mask = np.ones((len(rows), past + width), dtype=np.int64)
        positions = np.empty((len(rows), width), dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            places[index, past - len(row.past) :] = row.past
            mask[index, : past - len(row.past)] = 0
            # Padding behind a piece is never attended to; its positions only must not leave the context.
            positions[index] = len(row.past) + np.minimum(np.arange(width), len(row.ids) - 1)
        cache = self._slots.gather(places)
        wants = any(len(row.following) for row in rows)
        logits = self._model(
            input_ids=self._tensor(ids), attention_mask=self._tensor(mask), position_ids=self._tensor(positions),
            past_key_values=cache, use_cache=True, logits_to_keep=width if wants else 1,
        ).logits  # fmt: skip
        self._check(cache, past + width)
        self.n_tokens += sum(lengths)
        slots = self._slots.keep(cache, past, lengths)
        logprobs = [
            _chosen(logits[index, -width:][: len(row.following)], self._tensor(row.following.astype(np.int64)))
            for index, row in enumerate(rows)
        ]
        flat = torch.cat(logprobs).cpu()  # one transfer
        return list(zip(slots, torch.split(flat, [len(row.following) for row in rows]), strict=True))

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)

    def _check_kind(self, piece: Piece) -> None:
        n_prompt = len(piece.prompt.ids)
        last = last_of_kind(self._model.config, n_prompt - 1)  # the prompt is read without its last token
        if last is not None and len(piece.ids) > last:
            raise ModelError(
                f"{self._name}: a response ends at token {len(piece.ids):,} with its prompt of {n_prompt:,}, but "
                f"beyond {last:,} the model reads all of a text with other positions, so that what was read of its "
                "beginning would be wrong; it cannot be read piece by piece. Score whole responses instead: freeprm "
                "score"
            )

    def _check(self, cache: Cache, length: int) -> None:
        layers = plain_layers(cache)
        if len(layers) != self._n_layers or any(layer.get_seq_length() != length for layer in layers):
            raise _unsuited(self._model, self._name)


def is_begun(piece: Piece) -> bool:
    """What stands before the piece has been read, so that it can be."""
    return piece.ids[: piece.start].tobytes() in piece.prompt.read


def _row(piece: Piece) -> _Row:
    past = piece.prompt.read.get(piece.ids[: piece.start].tobytes())
    assert past is not None, "a piece begins where its prompt ends, or a piece that was read"
    # A token is predicted by the one before it.
    return _Row(past, piece.ids[piece.start - 1 : piece.stop - 1], piece.ids[piece.start : piece.stop])


def _key(piece: Piece) -> tuple[int, bytes]:
    return piece.start, piece.ids[: piece.stop].tobytes()


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """(T,) log-softmax of (T, V) logits at (T,) ids, in float32 or better."""
    exact = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -cross_entropy(exact, ids, reduction="none")


def _n_layers(model: PreTrainedModel, name: str) -> int:
    """Layers that keep keys and values."""
    n_layers = n_kept_layers(model)
    if n_layers is None:
        raise _unsuited(model, name)
    return n_layers


def _unsuited(model: PreTrainedModel, name: str) -> ModelError:
    return ModelError(
        f"{name}: a {type(model).__name__}, whose layers do not all keep keys and values in transformers' way; it "
        "cannot be read piece by piece. Score whole responses instead: freeprm score"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stepped:
    """A response cut into steps."""

    encoded: Encoded
    steps: tuple[Span, ...]
    """K ranges of the response's tokens, tiling 0..T."""

    def prefix(self, step: int) -> bytes:
        """What decides a step's reward: prompt and response up to its end, and where it begins."""
        stop = self.encoded.n_prompt + self.steps[step].stop
        return self.steps[step].start.to_bytes(4) + self.encoded.ids[:stop].tobytes()


class ReadPrompt:
    """A prompt that both models read, for the responses to it."""

    def __init__(self, encoded: Encoded):
        ids = encoded.ids[: encoded.n_prompt]
        self.policy, self.reference = Prompt(ids), Prompt(ids)


class StepwiseRewards:
    """Step rewards by one way of reading the two models.

    Args:
        policy: the trained model.
        reference: the one that it started from, None where it is not needed.
        reward: a name in `core.rewards.REWARDS`; only the models that it takes are run.
        beta: the scale.

    Raises:
        ConfigError: no such reward.
        ModelError: it takes the reference, which is not there, or a model cannot be read step by step.
    """

    def __init__(self, *, policy: Backbone, reference: Backbone | None, reward: str, beta: float):
        check_reward(reward)
        if reference is None and reward != "without-reference":
            raise ModelError(f"reward {reward!r} needs the reference, which was not loaded; choose 'without-reference'")
        self._combine, self._beta = REWARDS[reward], beta
        self._policy = None if reward == "reference-only" else _reader(policy)
        self._is_shared = reference is policy and self._policy is not None
        needs_reference = reference is not None and reward != "without-reference" and not self._is_shared
        self._reference = _reader(reference) if needs_reference and reference is not None else None

    @property
    def n_tokens(self) -> int:
        """Tokens that went through either model so far, prompts included."""
        return sum(reader.n_tokens for reader in self._readers)

    @property
    def read(self) -> dict[str, int]:
        """Of these, the tokens of each model, by charge; an untrained policy is its own reference."""
        readers = {POLICY: self._policy, REFERENCE: self._reference}
        return {what: reader.n_tokens for what, reader in readers.items() if reader is not None}

    @property
    def capacity(self) -> int:
        """Tokens, of prompts and responses that are open at a time, that there is memory for."""
        return min(reader.capacity for reader in self._readers) // len(self._readers)

    def rewards(
        self, wanted: Sequence[tuple[ReadPrompt, Stepped, int]], *, known: Sequence[Tensor | None] = ()
    ) -> list[float]:
        """Reward of one step of each response, whose steps before were asked for before.

        Args:
            wanted: a response with its prompt, and the step.
            known: for each, the reference's log-probabilities of the step's tokens; None where they are to be read.

        Raises:
            NonFiniteError: a log-probability is NaN or infinite; names the response.
        """
        policy = _logprobs(self._policy, [_piece(prompt.policy, item, step) for prompt, item, step in wanted])
        ref = self._reference_logprobs(wanted, known or [None] * len(wanted))
        policy, ref = policy or ref, ref or policy
        rewards = []
        for (_, item, step), p, r in zip(wanted, policy, ref, strict=True):
            tokens = self._combine(p.numpy().astype(np.float64), r.numpy().astype(np.float64), self._beta)
            if not np.isfinite(tokens).all():
                raise NonFiniteError(
                    f"{item.encoded.name}: the reward of step {step} is not finite; a model's weights or its dtype are "
                    "at fault (float16 overflows where bfloat16 does not), or training diverged"
                )
            rewards.append(float(tokens.sum()))
        return rewards

    def close(self, prompt: ReadPrompt) -> None:
        """Forget a prompt and its responses."""
        if self._policy:
            self._policy.close(prompt.policy)
        if self._reference:
            self._reference.close(prompt.reference)

    def _reference_logprobs(
        self, wanted: Sequence[tuple[ReadPrompt, Stepped, int]], known: Sequence[Tensor | None]
    ) -> list[Tensor]:
        if self._reference is None:
            return []
        unknown = [one for one, logprobs in zip(wanted, known, strict=True) if logprobs is None]
        pieces = [_piece(prompt.reference, item, step) for prompt, item, step in unknown]
        # Where steps before were known, nothing of them has been read.
        unread = [piece for piece in pieces if piece.start > len(piece.prompt.ids) and not is_begun(piece)]
        self._reference.read([piece._replace(start=len(piece.prompt.ids), stop=piece.start) for piece in unread])
        read = iter(self._reference.read(pieces))
        return [next(read) if logprobs is None else logprobs for logprobs in known]

    @property
    def _readers(self) -> list[IncrementalReader]:
        return [reader for reader in (self._policy, self._reference) if reader is not None]


def _reader(backbone: Backbone) -> IncrementalReader:
    return IncrementalReader(backbone.model, name=backbone.source)


def _logprobs(reader: IncrementalReader | None, pieces: Sequence[Piece]) -> list[Tensor]:
    return [] if reader is None else reader.read(pieces)


def _piece(prompt: Prompt, item: Stepped, step: int) -> Piece:
    start, stop = item.steps[step]
    return Piece(prompt, item.encoded.ids, item.encoded.n_prompt + start, item.encoded.n_prompt + stop)
