"""The training commands of the documentation, with their very settings, on a tiny model."""

import json
import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

import tiny
from conftest import REPO
from freeprm.cli.main import app
from freeprm.io.rollouts import rollout_row
from freeprm.scorers.implicit import ImplicitPRM

ROLLOUTS = tiny.rollouts(8, labels=(True, False) * 8)
"""16 groups of 8, or 64 of 2: at least two steps, the first of which has a learning rate of 0."""


def recipes() -> list[list[str]]:
    """The arguments of each `freeprm train` for an 8B model, without what launches it on several GPUs."""
    pages = [
        (REPO / name).read_text(encoding="utf-8").replace("\\\n", " ") for name in ("README.md", "docs/real-model.md")
    ]
    lines = [line for page in pages for line in re.findall(r"^ {4}(.*freeprm train .*)$", page, re.MULTILINE)]
    return [shlex.split(line.split("freeprm train ")[1]) for line in lines if "Llama-3.1-8B" in line]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts, and a model with weights of sd 0.02, all of them bfloat16 numbers, as released ones are."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(rollout_row(one)) + "\n" for one in ROLLOUTS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**tiny.sizes(initializer_range=0.02)))
    model.to(torch.bfloat16).float().save_pretrained(folder / "model")
    tiny.tokenizer(template=tiny.LLAMA3).save_pretrained(folder / "model")
    return folder


def run(work: Path, recipe: Sequence[str], *more: str, out: str) -> str:
    """What a recipe prints, with our data, model and place."""
    ours = ("--model", str(work / "model"), "--out", str(work / out))  # of an option given twice the last one counts
    arguments = ["train", str(work / "rollouts.jsonl"), *recipe[1:], *ours, *more]
    made = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    return made.output


def margin(folder: Path) -> float:
    """The mean reward of right responses less that of wrong ones, read in float32."""
    prm = ImplicitPRM.from_pretrained(folder, dtype="float32")
    by_label: dict[bool | None, list[float]] = {True: [], False: []}
    for _, group in groupby(ROLLOUTS, key=lambda rollout: rollout.prompt):
        own = list(group)
        for rollout, score in zip(own, prm.score(own[0].prompt, [one.response for one in own]), strict=True):
            by_label[rollout.correct].append(score.reward)
    return fmean(by_label[True]) - fmean(by_label[False])


every_recipe = pytest.mark.parametrize("recipe", recipes(), ids=range(len(recipes())))


def test_the_documentation_has_a_recipe_for_adapters_one_gpu_and_eight():
    texts = [" ".join(recipe) for recipe in recipes()]
    for setting in ("--lora 16", "trainer.optim=stable_adamw", "trainer.bf16=true"):
        assert any(setting in text for text in texts)


@every_recipe
def test_a_recipe_of_the_documentation_is_taken_as_it_is(work: Path, recipe: list[str]):
    assert "would train" in run(work, recipe, "--dry-run", out="nowhere")


@pytest.mark.slow
@every_recipe
def test_a_recipe_of_the_documentation_teaches_what_it_would_in_float32(work: Path, recipe: list[str]):
    place = str(recipes().index(recipe))
    exact = ["--set", "dtype=float32", "--set", "trainer.bf16=false", "--set", "trainer.optim=adamw_torch"]
    run(work, recipe, out=place)
    run(work, recipe, *exact, out=f"{place}-float32")
    wanted = margin(work / f"{place}-float32")
    assert wanted > 0
    assert margin(work / place) == pytest.approx(wanted, rel=0.1)
