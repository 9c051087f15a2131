"""A real pretrained model on real problems: SmolLM2-135M-Instruct, its sampling, scoring, training and peak memory.

FREEPRM_TEST_MODELS names the folder that holds the model's, `smollm2-135m`, and FREEPRM_TEST_DATA the one with GSM8K
and with solutions by others: four a problem of GSM8K, eight a problem of MATH. Without them there are rows, and no
figures. Prompts are rendered by the model's chat template. All is measured in float32, and once more in bfloat16 on a
processor that multiplies it: in sampling and scoring the weights, in training by autocast, as the preset `small` has
it.

Sampling is the engine, loaded before the clock starts, beside `generate` twice: with the samples of one prompt at a
time, as scripts do, and with those of all prompts in one batch, as large as the engine's. A rate counts drawn tokens up
to each end token.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks import memory, scoring, training
from benchmarks.peers import generated_tokens
from benchmarks.rows import Row, faster
from benchmarks.timing import counted
from benchmarks.training import PLAIN, TRL
from benchmarks.workloads import named_folder, rollouts_of
from freeprm.datasets.gsm8k import GSM8K
from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.hf.engine import HFEngine
from freeprm.io.rollouts import read_rollouts
from freeprm.models.loading import check_dtype
from freeprm.models.memory import weight_bytes
from freeprm.types import Group, Problem, group_rollouts

MODEL = "smollm2-135m"
_SAMPLING = ("sampling, generate a prompt at a time", "sampling, generate all at once")
_SCORING = (f"scoring, {PLAIN}",)
_TRAINING = (f"training ce, {PLAIN}", f"training dpo, {TRL}")
_MEMORY = (f"memory of scoring, {PLAIN}", f"memory of training dpo, {TRL}")
TARGETS = dict(zip((_SAMPLING[0], *_SCORING, *_TRAINING), (5.0, 2.0, 3.0, 3.0), strict=True))
"""How many times a peer's rate is aimed at, where something is."""
SOLUTIONS = {
    "GSM8K": Path("gsm8k", "rollouts_example_model_solutions.jsonl"),
    "MATH": Path("qwen_rm_maj_100x8", "rollouts.jsonl"),
}
MEAN_TOLERANCES = {"float32": None, "bfloat16": 0.2}
"""Nats a token: a bfloat16 logit from 16 to 32 has its neighbours 0.125 away, and 30 layers round before it."""
_MODELS, _DATA = "FREEPRM_TEST_MODELS", "FREEPRM_TEST_DATA"
_N = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Solutions:
    """A real model and others' solutions; `workloads.Measurable`."""

    folder: Path
    """Of the model."""
    data: Path
    task: str
    """One of `SOLUTIONS`."""
    problems: int
    n: int
    """Solutions of each; two are the first right and the first wrong one, and problems without them are left out."""
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.folder.name}, {self.task}, P={self.problems}, N={self.n}, {self.dtype}"

    @property
    def weights_mib(self) -> float:
        """MiB of the model's weights."""
        return weight_bytes(self.folder, getattr(torch, self.dtype)) / 2**20

    def model(self) -> PreTrainedModel:
        """As transformers loads it."""
        loaded = AutoModelForCausalLM.from_pretrained(self.folder, dtype=getattr(torch, self.dtype))
        model: PreTrainedModel = loaded.eval()
        return model

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer

    def groups(self) -> list[Group]:
        """The first problems that have enough solutions."""
        found = group_rollouts(read_rollouts([self.data / SOLUTIONS[self.task]]).rollouts)
        if self.n == 2:
            found = [pair for group in found if (pair := _pair(group)) is not None]
        enough = [replace(group, rollouts=group.rollouts[: self.n]) for group in found if len(group.rollouts) >= self.n]
        return enough[: self.problems]


def _pair(group: Group) -> Group | None:
    """The first right and the first wrong response, if there are both."""
    by_label = {rollout.correct: rollout for rollout in reversed(group.rollouts)}
    if True not in by_label or False not in by_label:
        return None
    return replace(group, rollouts=(by_label[True], by_label[False]))


class Sizes(NamedTuple):
    """How much is measured."""

    prompts: int
    """Of which 8 responses are drawn."""
    max_new_tokens: int
    problems: int
    """Of GSM8K, with four responses each, and so many steps of training; of MATH a quarter, with eight responses."""
    rounds: int
    """Of sampling and scoring."""


FULL, QUICK = Sizes(8, 64, 4, 2), Sizes(2, 64, 2, 1)


def real(*, quick: bool) -> Iterator[Row]:
    """Rows of sampling, scoring, training and memory."""
    for part in (real_sampling, real_scoring, real_training, real_memory):
        yield from part(quick=quick)


def real_sampling(*, quick: bool) -> Iterator[Row]:
    """Rows of the engine beside `generate`."""
    return _given(_SAMPLING, sampling_rows, quick=quick)


def real_scoring(*, quick: bool) -> Iterator[Row]:
    """Rows of token log-probabilities beside the plain way of transformers, with four and eight responses a problem."""
    return _given(_SCORING, scoring_rows, quick=quick)


def real_training(*, quick: bool) -> Iterator[Row]:
    """Rows of CE beside a plain loop, and of DPO beside TRL."""
    return _given(_TRAINING, training_rows, quick=quick)


def real_memory(*, quick: bool) -> Iterator[Row]:
    """Rows of peak memory, in float32."""
    return _given(_MEMORY, memory_rows, quick=quick)


def _given(
    names: Sequence[str], rows: Callable[[Path, Path, Sizes], Iterator[Row]], *, quick: bool
) -> Iterator[Row]:  # fmt: skip
    """The rows of the model and data that the environment names; where there are none, rows of the names say so."""
    models, data = named_folder(_MODELS), named_folder(_DATA)
    why = None
    if models is None or not (models / MODEL).is_dir():
        why = f"no {MODEL}; set {_MODELS} to the folder that has it"
    elif data is None:
        why = f"no real data; set {_DATA} to the folder that has it"
    else:
        yield from rows(models / MODEL, data, QUICK if quick else FULL)
    for name in names if why else ():
        unit = "MiB" if names is _MEMORY else "tokens/s"
        yield Row(name=f"real/{name}: {MODEL}", target=TARGETS.get(name), unit=unit, missing=why)


def _dtypes() -> list[str]:
    return ["float32", *(["bfloat16"] if scoring.has_bf16(scoring.processor_flags()) else [])]


def sampling_rows(folder: Path, data: Path, sizes: Sizes) -> Iterator[Row]:
    """Those of a model, as for the functions below.

    Args:
        folder: of the model.
        data: holds `gsm8k/test.jsonl` and the files of `SOLUTIONS`.
        sizes: how much is measured.
    """
    for dtype in _dtypes():
        yield from _sampling(folder, data, sizes, dtype)


def scoring_rows(folder: Path, data: Path, sizes: Sizes) -> Iterator[Row]:
    """See `sampling_rows`."""
    four = Solutions(folder=folder, data=data, task="GSM8K", problems=sizes.problems, n=4)
    for work in (four, replace(four, task="MATH", problems=max(1, sizes.problems // 4), n=8)):
        for dtype in _dtypes():
            yield _scoring(replace(work, dtype=dtype), rounds=sizes.rounds)


def training_rows(folder: Path, data: Path, sizes: Sizes) -> Iterator[Row]:
    """See `sampling_rows`."""
    four = Solutions(folder=folder, data=data, task="GSM8K", problems=sizes.problems, n=4)
    pairs = replace(four, problems=2 * sizes.problems, n=2)
    ce_name, dpo_name = _TRAINING
    for dtype in _dtypes():
        ce = training.Case(
            work=four, objective="ce", groups_a_batch=1, peers=(PLAIN,), target=TARGETS[ce_name],
            bf16=dtype == "bfloat16", subject="real/training ",
        )  # fmt: skip
        yield from training.measure(ce)
        yield from training.measure(
            replace(ce, work=pairs, objective="dpo", groups_a_batch=2, peers=(TRL,), target=TARGETS[dpo_name])
        )


def memory_rows(folder: Path, data: Path, sizes: Sizes) -> Iterator[Row]:
    """See `sampling_rows`."""
    four = Solutions(folder=folder, data=data, task="GSM8K", problems=sizes.problems, n=4)
    pairs = replace(four, n=2)
    scored, trained = _MEMORY
    yield memory.scoring(four, name=f"real/{scored}: {four}")
    yield memory.training(pairs, TRL, objective="dpo", name=f"real/{trained}: {pairs}")


def _sampling(folder: Path, data: Path, sizes: Sizes, dtype: str) -> Iterator[Row]:
    """The engine beside both ways of `generate`."""
    problems = list(GSM8K(path=data / "gsm8k").problems("test", limit=sizes.prompts, seed=0))
    engine = HFEngine(model=str(folder), dtype=check_dtype(dtype), device="cpu", workers=1)
    params = SamplingParams(max_new_tokens=sizes.max_new_tokens)
    theirs = Solutions(folder=folder, data=data, task="GSM8K", problems=0, n=0, dtype=dtype)
    model, tokenizer = theirs.model(), theirs.tokenizer()

    def ours(some: Sequence[Problem], how: SamplingParams) -> int:
        requests = [
            Request(problem_id=problem.problem_id, prompt=problem.prompt, sample_idxs=tuple(range(_N)))
            for problem in some
        ]  # fmt: skip
        return sum(sample.n_generated_tokens or 0 for sample in engine.sample(requests, params=how))

    def peer(some: Sequence[Problem], how: SamplingParams) -> int:
        prompts = [problem.prompt for problem in some]
        return generated_tokens(
            model, tokenizer, prompts, n=_N, temperature=how.temperature, max_new_tokens=how.max_new_tokens
        )

    for way in (ours, peer):
        way(problems[:1], replace(params, max_new_tokens=2))  # loads, and what only a process's first pass does
    one_by_one, at_once = _SAMPLING
    ways = {
        "ours": lambda: ours(problems, params),
        one_by_one: lambda: sum(peer([problem], params) for problem in problems),
        at_once: lambda: peer(problems, params),
    }
    rates = counted(ways, rounds=sizes.rounds)
    size = f"P={sizes.prompts}, N={_N}, up to {sizes.max_new_tokens} tokens"
    for name in _SAMPLING:
        yield faster(
            f"real/{name}: {folder.name}, GSM8K, {size}, {dtype}",
            ours=rates["ours"], peer=rates[name], target=TARGETS.get(name),
            details={"ours_tokens": rates["ours"].amount, "peer_tokens": rates[name].amount},
        )  # fmt: skip


def _scoring(work: Solutions, *, rounds: int) -> Row:
    """Token log-probabilities beside the plain way."""
    found = scoring.beside_plain(
        work.model(), work.model(), work.tokenizer(), rollouts_of(work.groups()), rounds=rounds,
        mean_tolerance=MEAN_TOLERANCES[work.dtype],
    )  # fmt: skip
    return faster(
        f"real/{_SCORING[0]}: {work}", ours=found.ours, peer=found.peer, target=TARGETS[_SCORING[0]],
        details=found.details,
    )  # fmt: skip
