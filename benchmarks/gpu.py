"""Llama 3's shapes with random weights on a GPU, in bfloat16: how much of the matrix products' peak is used.

A figure is MFU: the FLOPs that the work needs (each prompt once, logits of response tokens only; three forward passes'
worth in training) over the time and the speed of bare matrix products measured on the same device. Without a GPU there
are rows, and no figures.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.rows import Row, required
from benchmarks.timing import Rate, interleaved, matmul_work, timed
from benchmarks.training_runs import Plan, run_ours
from benchmarks.workloads import (
    Work,
    Workload,
    random_groups,
    random_model,
    random_rollouts,
    rollouts_of,
    word_tokenizer,
)
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens

SCORING, TRAINING = 0.6, 0.5
"""MFU that is required of the 8B shape."""


def gpu(*, quick: bool) -> Iterator[Row]:
    """A row of scoring and one of training for each size."""
    for size in ("1B",) if quick else ("1B", "8B"):
        score = Workload(size=size, vocabulary=128_000, prompts=8, n=64, prompt_tokens=150, dtype="bfloat16")
        train = Workload(size=size, vocabulary=128_000, prompts=16, n=8, prompt_tokens=150, dtype="bfloat16")
        names = f"gpu/scoring: {score}", f"gpu/training: {train}"
        if torch.cuda.is_available():
            yield scoring(score, name=names[0], device="cuda")
            torch.cuda.empty_cache()
            yield training(train, name=names[1], device="cuda")
            torch.cuda.empty_cache()
        else:
            for name, least in zip(names, (SCORING, TRAINING), strict=True):
                yield Row(name=name, peer=least, target=1.0, unit="MFU", missing="no CUDA device here")


def scoring(work: Workload, *, name: str, device: str, rounds: int = 3) -> Row:
    """One model's pass over all responses."""
    model = random_model(work, device=device)
    encoded = encode(word_tokenizer(work.vocabulary), random_rollouts(work))
    products, flops = matmul_work(work.dtype, device=device)
    ways = {"ours": lambda: score_tokens(model, encoded), "matmul": products}
    seconds = interleaved(ways, rounds=rounds, warm_up=True)
    needed = Work.of(encoded, model.config)
    peak = Rate(amount=flops, seconds=seconds["matmul"]).best
    tokens = Rate(amount=needed.naive_tokens, seconds=seconds["ours"])
    return required(
        name, ours=Rate(amount=needed.unique_flops / peak, seconds=seconds["ours"]), least=SCORING, unit="MFU",
        details={**_details(device, peak), "tokens_a_second": tokens.median},
    )  # fmt: skip


def training(work: Workload, *, name: str, device: str, groups_a_batch: int = 2) -> Row:
    """Optimisation steps of CE, all but the first."""
    model, tokenizer = random_model(work, device=device), word_tokenizer(work.vocabulary)
    products, flops = matmul_work(work.dtype, device=device)
    products()
    peak = Rate(amount=flops, seconds=tuple(timed(products) for _ in range(3))).best
    plan = Plan(objective="ce", groups=tuple(random_groups(work)), groups_a_batch=groups_a_batch)
    with tempfile.TemporaryDirectory() as out:
        run = run_ours(model, tokenizer, plan, out=Path(out))
    needed = Work.of(encode(tokenizer, rollouts_of(plan.measured)), model.config)
    taken = (sum(run.step_seconds),)
    return required(
        name, ours=Rate(amount=3 * needed.unique_flops / peak, seconds=taken), least=TRAINING, unit="MFU",
        details={**_details(device, peak), "tokens_a_second": needed.naive_tokens / taken[0]},
    )  # fmt: skip


def _details(device: str, peak: float) -> dict[str, float]:
    details = {"matmul_peak_tflops": peak / 1e12}
    if device == "cuda":
        details["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return details
