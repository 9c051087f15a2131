"""Memory and time of one long response: scored, trained on, and trained on with activations recomputed.

    python scripts/long_responses.py

A random Llama of 128 units, 4 layers and 32,000 tokens reads responses of 2,048 to 32,768 tokens, each in a process of
its own. What is printed is how far the process's peak of memory rises, and how long it takes.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import score_tokens, token_logprobs

HOW = ("score", "train", "train, recomputing")
N_PROMPT, VOCABULARY = 60, 32_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="2048,8192,32768")
    parser.add_argument("--one", nargs=2, metavar=("LENGTH", "HOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measured(int(arguments.one[0]), arguments.one[1]), flush=True)
        return
    print("| tokens | " + " | ".join(HOW) + " |\n| --- " + "| --- " * len(HOW) + "|")
    for length in arguments.lengths.split(","):
        cells = [
            subprocess.run(
                [sys.executable, __file__, "--one", length, how], capture_output=True, text=True, check=True
            ).stdout.strip()
            for how in HOW
        ]
        print("| " + " | ".join([f"{int(length):,}", *cells]) + " |", flush=True)


def measured(length: int, how: str) -> str:
    """Peak memory above that of a short response, and seconds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=max(length + N_PROMPT, 4096), tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if how == HOW[2]:
        model.gradient_checkpointing_enable()
        model.train()
    for n_tokens in (50, length):
        before, started = peak_mib(), time.perf_counter()
        item = drawn(n_tokens)
        if how == HOW[0]:
            score_tokens(model, [item])
        else:
            token_logprobs(model, [item]).sum().backward()
    return f"{peak_mib() - before:,.0f} MiB, {time.perf_counter() - started:.0f} s"


def drawn(n_tokens: int) -> Encoded:
    """A response of random tokens."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, N_PROMPT + n_tokens).astype(np.int32)
    return Encoded(name="a response", ids=ids, n_prompt=N_PROMPT, offsets=np.zeros((n_tokens, 2), np.int32))


def peak_mib() -> float:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
