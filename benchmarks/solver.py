"""The embedded solver: tokens a second in sampling, in scoring and in training, as the demo does it.

Sampling is the stage as users call it, processes and files included; training is optimisation steps with the preset's
batch. Scoring and training go over different responses only, and a rate counts each with its prompt. The peers are
`generate` of transformers, and its plain way to log-probabilities.
"""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from benchmarks.peers import generated_tokens
from benchmarks.rows import Row, faster, required
from benchmarks.scoring import beside_plain
from benchmarks.timing import Rate, counted, timed
from benchmarks.training_runs import Plan, run_ours
from benchmarks.workloads import rollouts_of
from freeprm.datasets.arithmetic import Arithmetic
from freeprm.io.rollouts import read_rollouts
from freeprm.models.encoding import encode
from freeprm.models.loading import Backbone, LoadOptions, load_backbone
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.training.groups import divide
from freeprm.types import Group, Rollout, group_rollouts

MODEL = "solver:base"
SAMPLE, SCORE, TRAIN = 15_000, 40_000, 20_000
"""Tokens a second that are required on two cores."""
_TEMPERATURE, _MAX_NEW_TOKENS, _N = 0.8, 200, 16
_GROUPS_A_BATCH, _GROUP_SIZE = 8, 8
_PEER_PROMPTS = 16  # of N samples each: a batch of 256 rows, as many as our engine takes at a time


def solver(*, quick: bool) -> Iterator[Row]:
    """Rows of sampling, scoring and training."""
    yield from measure(n_problems=64 if quick else 400, rounds=1 if quick else 3)


def measure(*, n_problems: int, rounds: int) -> Iterator[Row]:
    """The rows of so many problems."""
    backbone = _backbone()
    with tempfile.TemporaryDirectory() as scratch:
        yield from _sampling(backbone, Path(scratch), n_problems=n_problems, rounds=rounds)
        groups = _graded(Path(scratch))
    yield from _scoring(backbone, rollouts_of(groups), rounds=rounds + 1)
    yield _training(backbone, groups, rounds=rounds)


def _backbone() -> Backbone:
    """The solver, loaded anew: each side has a model of its own, and training changes one."""
    return load_backbone(MODEL, LoadOptions(device="cpu"))


def _sampling(backbone: Backbone, scratch: Path, *, n_problems: int, rounds: int) -> Iterator[Row]:
    prompts = [problem.prompt for problem in Arithmetic().problems("train", limit=_PEER_PROMPTS, seed=0)]
    folders = count()

    def ours() -> int:
        made = sample(
            "arithmetic", model=MODEL, out=scratch / f"sampled-{next(folders)}", split="train", n_problems=n_problems,
            n=_N, temperature=_TEMPERATURE, max_new_tokens=_MAX_NEW_TOKENS,
        )  # fmt: skip
        return made.cost.generated_tokens

    def peer() -> int:
        return generated_tokens(
            backbone.model, backbone.tokenizer, prompts, n=_N, temperature=_TEMPERATURE,
            max_new_tokens=_MAX_NEW_TOKENS,
        )  # fmt: skip

    rates = counted({"ours": ours, "peer": peer}, rounds=rounds)
    details = {"generated_tokens": rates["ours"].amount, "problems": n_problems, "n": _N}
    yield required("solver/sampling", ours=rates["ours"], least=SAMPLE, details=details)
    yield faster("solver/sampling, generate", ours=rates["ours"], peer=rates["peer"], details=details)


def _graded(scratch: Path) -> list[Group]:
    """What was sampled, graded, each different response once, in groups as training takes them."""
    graded = grade([scratch / "sampled-0"], out=scratch / "graded")
    rollouts = read_rollouts([graded.folder]).rollouts
    different = {(rollout.problem_id, rollout.response): rollout for rollout in rollouts if rollout.correct is not None}
    groups, _ = divide(group_rollouts(list(different.values())), size=_GROUP_SIZE, needs_pairs=False)
    return groups


def _scoring(backbone: Backbone, rollouts: Sequence[Rollout], *, rounds: int) -> Iterator[Row]:
    found = beside_plain(backbone.model, _backbone().model, backbone.tokenizer, rollouts, rounds=rounds)
    yield required("solver/scoring", ours=found.ours, least=SCORE, details=found.details)
    yield faster("solver/scoring, plain Hugging Face", ours=found.ours, peer=found.peer, details=found.details)


def _training(backbone: Backbone, groups: Sequence[Group], *, rounds: int) -> Row:
    a_batch = min(_GROUPS_A_BATCH, len(groups) // 2)  # two steps at least: the first is not measured
    plan = Plan(objective="ce", groups=tuple(groups), groups_a_batch=a_batch, learning_rate=5e-4)
    seconds = []

    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            made = run_ours(_backbone().model, backbone.tokenizer, plan, out=Path(out))
        seconds.append(sum(made.step_seconds))

    whole = [timed(run) for _ in range(rounds)]
    encoded = encode(backbone.tokenizer, rollouts_of(plan.measured))
    n_tokens = sum(len(item.ids) for item in encoded)
    return required(
        "solver/training", ours=Rate(amount=n_tokens, seconds=tuple(seconds)), least=TRAIN,
        details={"steps": plan.n_steps - 1, "tokens": n_tokens, "seconds_with_reference_and_start": whole},
    )  # fmt: skip
