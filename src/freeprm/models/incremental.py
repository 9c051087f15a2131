"""Log-probabilities and step rewards of responses read piece by piece, the next piece of several at a time.

What has been read is kept as keys and values, a slot for each token in each layer (see `kv_cache`). Responses share
their prompt's slots, and those of any pieces that they begin with alike; a response that is not read on costs nothing
more. A forward pass gathers, for each row, the slots of what stands before its piece, with padding on the left, as in
batched generation: positions and distances are those of a row of its own.

The numbers are those from whole responses (see `core.rewards`), up to the rounding of another batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from freeprm.core.ledger import POLICY, REFERENCE
from freeprm.core.rewards import REWARDS, check_reward
from freeprm.errors import ModelError, NonFiniteError
from freeprm.models.batching import NOT_FINITE
from freeprm.models.encoding import Encoded, Ints
from freeprm.models.kv_cache import Slots, SlotTable
from freeprm.models.lengths import alike, forget_lengths, last_of_kind
from freeprm.models.loading import Backbone
from freeprm.models.output_head import give_float32_logits, logprobs_at
from freeprm.types import Span

_CPU_BUDGET, _GPU_BUDGET = 4096, 65_536  # tokens in a forward pass, with what is gathered before them
_LOGIT_BYTES = 512 << 20  # of logits in float32 held at a time
_NO_SLOTS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ReadPrompt:
    """A prompt, for the responses to it; readers know it by identity."""

    ids: Ints


class Piece(NamedTuple):
    """Tokens [start, stop) of a response, counted with its prompt's, whose log-probabilities are wanted."""

    prompt: ReadPrompt
    ids: Ints
    """Of prompt and response, up to `stop` at least."""
    start: int
    """The prompt's end, or the end of a piece that was read before."""
    stop: int

    @property
    def before(self) -> bytes:
        """Prompt and response up to the piece."""
        return self.ids[: self.start].tobytes()

    @property
    def whole(self) -> bytes:
        """The same up to its end."""
        return self.ids[: self.stop].tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What was read of a prompt and its responses."""

    slots: dict[bytes, Slots] = field(default_factory=dict)
    """By the ids of a beginning of prompt and response, the slots of all its tokens but the last, which is read with
    the next piece."""
    logprobs: dict[tuple[int, bytes], Tensor] = field(default_factory=dict)
    """By where a piece starts, and the ids up to where it stops."""
    owned: list[Slots] = field(default_factory=list)
    """Each slot once."""


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
        model: see `SlotTable`.
        name: of the model, for messages.

    Raises:
        ModelError: the model keeps its state in another way.
    """

    def __init__(self, model: PreTrainedModel, *, name: str):
        give_float32_logits(model)
        forget_lengths(model)
        self._model, self._name = model, name
        self._slots = SlotTable(
            model, name=name,
            refusal="it cannot be read piece by piece. Score whole responses instead: freeprm score",
        )  # fmt: skip
        self.capacity = self._slots.capacity
        """Tokens, of prompts and responses, that there is memory for."""
        self._known: dict[ReadPrompt, _Known] = {}
        self._budget = _CPU_BUDGET if model.device.type == "cpu" else _GPU_BUDGET
        self._max_positions = max(1, _LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size))
        self.n_tokens = 0
        """Tokens that went through the model so far, prompts included and padding not."""

    def read(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """log pi(y_t | x, y_<t) of each piece's tokens; what was read before, or is asked for twice, is read once.

        Returns:
            For each piece (stop - start,) float32 on the CPU (float64 for a float64 model).

        Raises:
            ModelError: the model reads a response's beginning otherwise once all of it is there.
        """
        for piece in pieces:
            self._check_kind(piece)
        for prompt in dict.fromkeys(piece.prompt for piece in pieces):
            if prompt not in self._known:
                self._open(prompt)
        keys = [(piece.prompt, piece.start, piece.whole) for piece in pieces]
        new = {
            key: piece
            for key, piece in zip(keys, pieces, strict=True)
            if key[1:] not in self._known[piece.prompt].logprobs
        }
        rows = [self._row(piece) for piece in new.values()]
        for (prompt, start, ids), row, (slots, logprobs) in zip(new, rows, self._pass(rows), strict=True):
            known = self._known[prompt]
            known.logprobs[start, ids] = logprobs
            known.slots.setdefault(ids, np.concatenate([row.past, slots]))
            known.owned.append(slots)
        return [self._known[prompt].logprobs[start, ids] for prompt, start, ids in keys]

    def is_begun(self, piece: Piece) -> bool:
        """What stands before the piece has been read, so that it can be."""
        return piece.prompt in self._known and piece.before in self._known[piece.prompt].slots

    def close(self, prompt: ReadPrompt) -> None:
        """Forget a prompt and its responses; their slots are used again."""
        for slots in self._known.pop(prompt, _Known()).owned:
            self._slots.free(slots)

    def _open(self, prompt: ReadPrompt) -> None:
        """Read a prompt but for its last token, which is read with the responses' first pieces."""
        ((slots, _),) = self._pass([_Row(_NO_SLOTS, prompt.ids[:-1], prompt.ids[:0])])
        self._known[prompt] = _Known(slots={prompt.ids.tobytes(): slots}, owned=[slots])

    def _row(self, piece: Piece) -> _Row:
        past = self._known[piece.prompt].slots.get(piece.before)
        assert past is not None, "a piece begins where its prompt ends, or a piece that was read"
        # A token is predicted by the one before it.
        return _Row(past, piece.ids[piece.start - 1 : piece.stop - 1], piece.ids[piece.start : piece.stop])

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
            batch: list[int] = []
            width = past = 0
            for index in sorted(part, key=lambda index: -len(rows[index].ids)):
                width, past = max(width, len(rows[index].ids)), max(past, len(rows[index].past))
                n_rows = len(batch) + 1
                if batch and (n_rows * (width + past) > self._budget or n_rows * width > self._max_positions):
                    yield batch
                    batch, width, past = [], len(rows[index].ids), len(rows[index].past)
                batch.append(index)
            yield batch

    @torch.inference_mode()
    def _forward(self, rows: Sequence[_Row]) -> list[tuple[Slots, Tensor]]:
        lengths = [len(row.ids) for row in rows]
        width, past = max(lengths), max(len(row.past) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        positions = np.empty((len(rows), width), dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            # Padding behind a piece is never attended to; its positions only must not leave the context.
            positions[index] = len(row.past) + np.minimum(np.arange(width), len(row.ids) - 1)
        cache, mask = self._slots.gather([row.past for row in rows], width=width)
        wants = any(len(row.following) for row in rows)
        logits = self._model(
            input_ids=self._tensor(ids), attention_mask=mask, position_ids=self._tensor(positions),
            past_key_values=cache, use_cache=True, logits_to_keep=width if wants else 1,
        ).logits  # fmt: skip
        slots = self._slots.keep(cache, past, lengths)
        self.n_tokens += sum(lengths)
        logprobs = [
            logprobs_at(logits[index, -width:][: len(row.following)], self._tensor(row.following))
            for index, row in enumerate(rows)
        ]
        flat = torch.cat(logprobs).cpu()  # one transfer
        return list(zip(slots, torch.split(flat, [len(row.following) for row in rows]), strict=True))

    def _tensor(self, array: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64, copy=False)).to(self._model.device)

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


class WantedStep(NamedTuple):
    """A step whose reward is wanted; those before it were asked for before."""

    prompt: ReadPrompt
    response: Stepped
    step: int
    ref_logps: Tensor | None = None
    """The reference's log-probabilities of its tokens; None where they are to be read."""

    @property
    def piece(self) -> Piece:
        """Its tokens."""
        encoded, (start, stop) = self.response.encoded, self.response.steps[self.step]
        return Piece(self.prompt, encoded.ids, encoded.n_prompt + start, encoded.n_prompt + stop)


def shared_prompt(prompts: dict[bytes, ReadPrompt], encoded: Encoded) -> ReadPrompt:
    """The prompt of a response among those of a problem: one, but where a token straddles the boundary to it."""
    ids = encoded.ids[: encoded.n_prompt]
    return prompts.setdefault(ids.tobytes(), ReadPrompt(ids))


class StepwiseRewards:
    """Step rewards by one way of reading the two models, which read no further than asked.

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
        self._readers: dict[str, IncrementalReader] = {}
        if reward != "reference-only":
            self._readers[POLICY] = IncrementalReader(policy.model, name=policy.source)
        # An untrained policy is its own reference, and read once.
        if reference is not None and reward != "without-reference" and not (reference is policy and self._readers):
            self._readers[REFERENCE] = IncrementalReader(reference.model, name=reference.source)

    @property
    def read(self) -> dict[str, int]:
        """Tokens that went through each model so far, prompts included, by charge."""
        return {charge: reader.n_tokens for charge, reader in self._readers.items()}

    @property
    def capacity(self) -> int:
        """Tokens, of prompts and responses that are open at a time, that there is memory for."""
        return min(reader.capacity for reader in self._readers.values()) // len(self._readers)

    def rewards(self, wanted: Sequence[WantedStep]) -> list[float]:
        """Reward of one step of each response.

        Raises:
            NonFiniteError: a log-probability is NaN or infinite; names the response.
        """
        logps = []
        if POLICY in self._readers:
            logps.append(self._readers[POLICY].read([one.piece for one in wanted]))
        if REFERENCE in self._readers:
            logps.append(self._ref_logps(wanted))
        rewards = []
        for one, policy, ref in zip(wanted, logps[0], logps[-1], strict=True):
            tokens = self._combine(policy.numpy().astype(np.float64), ref.numpy().astype(np.float64), self._beta)
            if not np.isfinite(tokens).all():
                raise NonFiniteError(
                    f"{one.response.encoded.name}: the reward of step {one.step} is not finite; {NOT_FINITE}"
                )
            rewards.append(float(tokens.sum()))
        return rewards

    def close(self, prompt: ReadPrompt) -> None:
        """Forget a prompt and its responses."""
        for reader in self._readers.values():
            reader.close(prompt)

    def _ref_logps(self, wanted: Sequence[WantedStep]) -> list[Tensor]:
        reader = self._readers[REFERENCE]
        pieces = [one.piece for one in wanted if one.ref_logps is None]
        # Where steps before were known, nothing of them has been read.
        unread = [piece for piece in pieces if piece.start > len(piece.prompt.ids) and not reader.is_begun(piece)]
        reader.read([piece._replace(start=len(piece.prompt.ids), stop=piece.start) for piece in unread])
        read = iter(reader.read(pieces))
        return [next(read) if one.ref_logps is None else one.ref_logps for one in wanted]
