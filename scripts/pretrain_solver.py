"""Train the embedded solver: one trunk on perfect solutions, then a branch per generator.

    python scripts/pretrain_solver.py --out build/solver
    python scripts/pretrain_solver.py --out build/solver --start OLDER --trunk-steps 450

With `--start` the trunk goes on from a solver of an earlier wording, token by token where both know a token.

The trunk learns to read and to calculate, in plain wording first. Each branch goes on from it with the solutions of
simulated students (`freeprm.world.solutions`), and becomes one generator: `base`; `large`, from students with fewer
misconceptions and slips; `small`, a shorter branch from more careless students. Seeded; a killed run goes on from its
last checkpoint when the same command is given again.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from freeprm.world.problems import ITEMS, NAMES, PHRASINGS, QUESTIONS, WordProblem, draw_problem, split_of
from freeprm.world.solutions import LINKS, OPENINGS, STATEMENTS, draw_student, solve_as, write

IGNORED = -100
PLAIN_SHARE = 0.3  # of the trunk
BATCHES_PER_POOL = 25  # drawn at a time and sorted by length, so that a batch holds little padding
SPECIAL = {"pad_token": "<|pad|>", "unk_token": "<|unk|>", "eos_token": "<|end|>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Branch:
    """One generator: how long it goes on after the trunk, and which students it imitates."""

    n_steps: int
    error_scale: float


BRANCHES = {
    "base": Branch(n_steps=200, error_scale=1.0),
    "large": Branch(n_steps=200, error_scale=0.4),
    "small": Branch(n_steps=120, error_scale=1.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and generators")
    parser.add_argument("--trunk-steps", type=int, default=1600)
    parser.add_argument("--start", type=Path, help="a solver of an earlier wording to go on from")
    parser.add_argument("--only", choices=tuple(BRANCHES), help="the one branch to make, once the trunk is there")
    parser.add_argument("--batch-rows", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    tokenizer = build_tokenizer()
    run = Run(tokenizer, args.batch_rows, args.seed)
    model = new_model(tokenizer, seed=args.seed)
    if args.start:
        take_over(model, tokenizer, args.start)
    model.to(args.device)
    curriculum = args.start is None
    trunk = run.train(
        model, args.out / "trunk", n_steps=args.trunk_steps, error_scale=None, curriculum=curriculum, warmup=100,
        lr_scale=1.0 if curriculum else 0.3,
    )  # fmt: skip
    for name, branch in BRANCHES.items():
        if args.only not in (None, name):
            continue
        model.load_state_dict(torch.load(trunk, weights_only=True)["model"])
        run.train(model, args.out / f"{name}-run", n_steps=branch.n_steps, error_scale=branch.error_scale, lr_scale=0.7)
        model.save_pretrained(args.out / name)
        tokenizer.save_pretrained(args.out / name)
        made = {"seed": args.seed, "trunk_steps": args.trunk_steps, "batch_rows": args.batch_rows, **asdict(branch)}
        made["trunk_went_on_from_an_older_solver"] = not curriculum
        (args.out / name / "training.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Words with their leading space, digits one by one, printable ASCII for everything else."""
    words = set(NAMES) | set(ITEMS)
    for text in (*QUESTIONS.values(), *(t for templates in PHRASINGS.values() for t in templates)):
        words |= {
            word for word in text.replace("?", " ").replace(".", " ").replace(",", " ").split() if "{" not in word
        }
    for text in (*OPENINGS, *LINKS, *STATEMENTS):
        words |= {word for word in text.replace(",", " ").split() if "{" not in word}
    words |= {"Step", "The", "answer", "is", "have", "system"}
    spaced = {" " + word for word in words} | {f" {digit}" for digit in range(10)} | {f" {sign}" for sign in "+-*/="}
    characters = {chr(code) for code in range(32, 127)} | {"\n"}
    special = [*SPECIAL.values(), "<|user|>", "<|assistant|>", "<|system|>"]
    pieces = sorted(words | spaced - characters, key=lambda piece: (piece.strip(), piece))
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -1.0) for piece in pieces if piece not in characters]
    vocabulary += [(character, -20.0) for character in sorted(characters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        **SPECIAL,
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>"]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.08, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def take_over(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Copy an older solver's weights; the embedding of a token that it did not know stays as it was drawn."""
    weights = LlamaForCausalLM.from_pretrained(folder).state_dict()
    known = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    embedding, older = model.state_dict()["model.embed_tokens.weight"].clone(), weights["model.embed_tokens.weight"]
    for token, index in tokenizer.get_vocab().items():
        if token in known:
            embedding[index] = older[known[token]]
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"] = embedding
    model.load_state_dict(weights)


class Run:
    """Training steps over endless fresh problems."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_rows: int, seed: int):
        self.tokenizer, self.batch_rows, self.seed = tokenizer, batch_rows, seed

    def train(
        self,
        model: LlamaForCausalLM,
        folder: Path,
        *,
        n_steps: int,
        error_scale: float | None,
        curriculum: bool = False,
        warmup: int = 1,
        lr_scale: float = 1.0,
    ) -> Path:
        """Train, from the folder's checkpoint where there is one; the path of the last checkpoint.

        Args:
            model: trained in place.
            folder: for the checkpoint.
            n_steps: optimisation steps in all.
            error_scale: of the students to imitate; None for perfect solutions.
            curriculum: short problems and plain wording first.
            warmup: steps to the full learning rate.
            lr_scale: times the usual learning rates.
        """
        folder.mkdir(parents=True, exist_ok=True)
        optimizers = make_optimizers(model, lr_scale)
        schedules = [trapezoid(optimizer, n_steps, warmup) for optimizer in optimizers]
        start, latest = 0, folder / "latest.pt"
        if latest.exists():
            state = torch.load(latest, weights_only=True)
            model.load_state_dict(state["model"])
            saved = iter(state["parts"])
            for optimizer in optimizers:
                optimizer.load_state_dict(next(saved))
            for schedule in schedules:
                schedule.load_state_dict(next(saved))
            start = state["step"]
        clock, seen, losses = time.perf_counter(), 0, []
        for step in range(start + 1, n_steps + 1):
            pool_index, position = divmod(step - 1, BATCHES_PER_POOL)
            progress = pool_index * BATCHES_PER_POOL / n_steps if curriculum else 1.0
            pool = draw_pool(
                pool_index, n_rows=self.batch_rows, seed=self.seed, progress=progress, error_scale=error_scale
            )
            texts = pool[position]
            ids, labels = encode(self.tokenizer, texts, model.device)
            logits = model(input_ids=ids).logits[:, :-1]  # right padding under a causal mask: none is attended
            loss = cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            seen += ids.numel()
            losses.append(loss.item())
            if step % 25 == 0:
                rate = seen / (time.perf_counter() - clock)
                print(
                    f"{folder.name} step {step}/{n_steps} loss {sum(losses) / len(losses):.4f} {rate:,.0f} tok/s",
                    flush=True,
                )
                losses = []
            if step % 100 == 0 or step == n_steps:
                parts = [part.state_dict() for part in optimizers] + [part.state_dict() for part in schedules]
                torch.save({"model": model.state_dict(), "parts": parts, "step": step}, latest)
        return latest


@lru_cache(maxsize=1)
def draw_pool(
    pool_index: int, *, n_rows: int, seed: int, progress: float, error_scale: float | None
) -> list[list[tuple[str, str]]]:
    """Batches of similar length in random order, the same for the same arguments."""
    rng = random.Random(f"{seed}/{pool_index}/{error_scale}")
    pairs = sorted(
        draw_pairs(rng, BATCHES_PER_POOL * n_rows, progress=progress, error_scale=error_scale),
        key=lambda pair: len("".join(pair)),
    )
    batches = [pairs[start : start + n_rows] for start in range(0, len(pairs), n_rows)]
    rng.shuffle(batches)
    return batches


def draw_pairs(
    rng: random.Random, count: int, *, progress: float, error_scale: float | None
) -> Iterator[tuple[str, str]]:
    """Question and solution pairs; short problems, plainly worded, first: names are bound to numbers late otherwise."""
    wording = rng if progress >= PLAIN_SHARE else None
    longest = 3 if progress < 0.06 else 4 if progress < 0.15 else 5 if progress < 0.3 or error_scale is not None else 6
    while count:
        problem: WordProblem = draw_problem(rng, n_steps=rng.randint(2 if progress < 0.15 else 3, longest))
        if split_of(problem.text) != "pretrain":
            continue
        if error_scale is None or rng.random() < 0.1:
            yield problem.text, write(problem, wording)
        else:
            yield problem.text, solve_as(draw_student(rng, error_scale=error_scale), problem, rng)
        count -= 1


def encode(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) token ids and labels; the loss falls on the solution and its end token only."""
    prompts = [f"<|user|>{question}<|end|><|assistant|>" for question, _ in pairs]
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer([solution + "<|end|>" for _, solution in pairs], add_special_tokens=False)["input_ids"]
    width = max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), width), IGNORED)
    for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
        labels[row, len(head) : len(head) + len(tail)] = torch.tensor(tail)
    return ids.to(device), labels.to(device)


def make_optimizers(model: LlamaForCausalLM, lr_scale: float) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices inside the blocks, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=0.02 * lr_scale, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=3e-3 * lr_scale, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def trapezoid(optimizer: torch.optim.Optimizer, n_steps: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up, a constant stretch, and a linear fall over the last 40 %."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 1.0, max(0.02, (n_steps - step) / (0.4 * n_steps)))
    )


if __name__ == "__main__":
    main()
