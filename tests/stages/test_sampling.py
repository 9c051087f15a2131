"""The sampling stage with a real tiny model: rows, resuming, counts, cost, and what it refuses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import freeprm.stages.sampling as module
from freeprm.core.flops import generation_flops
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf.engine import HFEngine
from freeprm.errors import ConfigError, DataError, ModelError, RunFolderError
from freeprm.io.rollouts import read_rollouts
from freeprm.io.runs import read_manifest
from freeprm.models.loading import device_name
from freeprm.stages.base import RunResult
from freeprm.stages.sampling import sample
from freeprm.types import Problem

PROBLEMS = [
    Problem(problem_id=f"p{index}", prompt="abcdefg "[: index + 2], answer=str(index), extra={"level": index % 3})
    for index in range(6)
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama over the letters, with a context of 40."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["</s>", *"abcdefgh ", "\n"])}
    letters = Tokenizer(models.BPE(vocabulary, merges=[]))
    letters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=40, initializer_range=0.2, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def run(model: str, out: Path, **changed: Any) -> RunResult:
    options: dict[str, Any] = {"n": 3, "max_new_tokens": 12, "temperature": 1.0, "engine_options": {"max_rows": 4}}
    return sample(changed.pop("problems", PROBLEMS), model=model, out=out, **{**options, **changed})


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The hf engine, until it has given seven samples."""

    model: str
    max_rows: int = 4

    def sample(self, requests: Sequence[Request], *, params: SamplingParams) -> Iterator[Sampled]:
        engine = HFEngine(model=self.model, max_rows=self.max_rows)
        for count, sampled in enumerate(engine.sample(requests, params=params)):
            if count == 7:
                raise KeyboardInterrupt
            yield sampled

    def identity(self) -> dict[str, Any]:
        return dict(HFEngine(model=self.model).identity())


def test_every_problem_gets_its_samples_in_order_with_its_own_columns(tiny: str, tmp_path: Path):
    made = run(tiny, tmp_path / "run")
    rollouts = read_rollouts([made.folder]).rollouts
    assert [(row.problem_id, row.sample_idx) for row in rollouts] == [(f"p{p}", i) for p in range(6) for i in range(3)]
    for row in rollouts:
        assert row.answer == row.problem_id[1:]
        assert row.extra["level"] == int(row.problem_id[1:]) % 3
        assert row.extra["n_prompt_tokens"] == len(str(row.prompt)) + 1
        assert row.truncated == (row.extra["stop_reason"] == "length")
        assert row.extra["n_generated_tokens"] == len(row.response) + (not row.truncated)


def test_cost_and_counts_come_from_the_rows(tiny: str, tmp_path: Path):
    made = run(tiny, tmp_path / "run")
    rollouts = read_rollouts([made.folder]).rollouts
    truncated = sum(row.truncated for row in rollouts)
    assert made.counts == {"problems": 6, "samples": 18, "resumed": 0, "truncated: max_new_tokens": truncated}
    assert made.cost.prompt_tokens == sum(len(str(problem.prompt)) + 1 for problem in PROBLEMS)
    assert made.cost.generated_tokens == sum(row.extra["n_generated_tokens"] for row in rollouts)
    expected = generation_flops(
        HFEngine(model=tiny).shape(), n_prompts=6, prompt_tokens=made.cost.prompt_tokens, n_samples=18,
        generated_tokens=made.cost.generated_tokens,
    )  # fmt: skip
    assert made.cost.flops == pytest.approx(expected.total)
    assert [(charge.what, charge.tokens) for charge in made.cost.charges] == [
        ("prefill", made.cost.prompt_tokens), ("decode", made.cost.generated_tokens),
    ]  # fmt: skip
    assert made.cost.devices == (device_name(),)
    assert made.cost.seconds > 0
    manifest = read_manifest(made.folder)
    assert manifest is not None
    assert manifest["cost"]["generated_tokens"] == made.cost.generated_tokens
    assert len(manifest["settings"]["weights_sha256"]) == 64


def test_an_interrupted_run_ends_in_the_same_bytes(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = run(tiny, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("freeprm.engines.hf.PLUGIN", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "cut")
    rows = (tmp_path / "cut" / "rollouts.jsonl").read_bytes()
    assert rows.count(b"\n") == 7
    (tmp_path / "cut" / "rollouts.jsonl").write_bytes(rows[:-5])  # as a crash in the middle of writing leaves it
    with pytest.warns(UserWarning, match="cut off"):
        resumed = run(tiny, tmp_path / "cut")
    assert resumed.counts["resumed"] == 6
    assert (resumed.folder / "rollouts.jsonl").read_bytes() == (whole.folder / "rollouts.jsonl").read_bytes()
    assert resumed.cost.flops == whole.cost.flops


def test_what_a_run_chose_when_it_began_stands_when_it_goes_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Choosy(Interrupted):
        """Would choose otherwise each time."""

        def choose(self, params: SamplingParams) -> dict[str, Any]:
            asked.append(params)
            return {"dtype": "float32", "time": len(asked), "said": "draws in float32"}

        def chosen(self, choice: Mapping[str, Any]) -> "Choosy":
            taken.append(choice["time"])
            return self

    asked: list[SamplingParams] = []
    taken: list[int] = []
    monkeypatch.setattr("freeprm.engines.hf.PLUGIN", Choosy)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "run")
    assert len(asked) == 1
    assert taken == [1, 1]
    monkeypatch.undo()
    made = run(tiny, tmp_path / "run")
    manifest = read_manifest(made.folder)
    assert manifest is not None
    assert manifest["choices"]["engine"]["time"] == 1
    assert manifest["settings"]["dtype"] == "auto"


def test_progress_is_told_in_tokens_with_a_guess_of_how_many_there_will_be(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = run(tiny, tmp_path / "run")
    said = capsys.readouterr().err
    assert f"sample: {made.cost.generated_tokens} tokens in " in said
    assert "18 of 18 samples" in said


def test_a_samples_length_is_guessed_from_those_that_go_on_too():
    assert module._tokens_left(0, 500, 320) == 320
    # Of 400 tokens 4 were a last one: h = 0.01, and without a limit a sample has 1 / h = 100.
    assert module._tokens_left(4, 400, 1 << 20) == pytest.approx(100)
    assert module._tokens_left(4, 400, 2) == pytest.approx(1 + 0.99)
    assert module._tokens_left(5, 5, 320) == 1


def test_samples_under_way_are_not_taken_to_be_as_short_as_those_that_are_done():
    totals = []
    shown = module._Shown(lambda n=1, note="", total=None: totals.append(total), 4, 0, 0, 100, in_tokens=True)
    shown.count(60)  # 10 tokens of each of two that end, and 20 of the two others
    for _ in range(2):
        shown.finish(SimpleNamespace(n_generated_tokens=10))
    # h = 2 / 60, and the two others may have 80 tokens more: 60 + 2 * 30 * (1 - (29 / 30)^80)
    assert totals[-1] == 116


def test_a_finished_run_is_not_drawn_again(tiny: str, tmp_path: Path):
    made = run(tiny, tmp_path / "run")
    stamp = (made.folder / "rollouts.jsonl").stat().st_mtime_ns
    assert run(tiny, tmp_path / "run") == made
    assert (made.folder / "rollouts.jsonl").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("changed", [{"seed": 1}, {"temperature": 0.5}, {"problems": PROBLEMS[:4]}, {"stop": ["a"]}])
def test_a_folder_of_another_run_is_refused(tiny: str, tmp_path: Path, changed: dict[str, Any]):
    run(tiny, tmp_path / "run")
    with pytest.raises(RunFolderError, match="holds another run"):
        run(tiny, tmp_path / "run", **changed)


def test_other_weights_in_the_same_place_are_another_run(tiny: str, tmp_path: Path):
    import shutil

    from transformers import AutoModelForCausalLM

    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    run(str(folder), tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.norm.weight.data *= 1.01
    model.save_pretrained(folder)
    with pytest.raises(RunFolderError, match="weights_sha256"):
        run(str(folder), tmp_path / "run")


def test_the_context_cuts_and_is_counted(tiny: str, tmp_path: Path):
    made = run(tiny, tmp_path / "run", max_new_tokens=200, n=8)
    assert made.counts["truncated: context"] > 0
    assert "truncated: max_new_tokens" not in made.counts


def test_samples_from_a_dataset_and_from_a_file_of_the_same_problems_are_equal(tiny: str, tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    rows = [{"problem_id": p.problem_id, "prompt": p.prompt, "answer": p.answer, **p.extra} for p in PROBLEMS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = run(tiny, tmp_path / "given").folder / "rollouts.jsonl"
    assert (run(tiny, tmp_path / "file", problems=file).folder / "rollouts.jsonl").read_bytes() == given.read_bytes()


def test_more_problems_than_there_are_or_a_problem_twice_is_refused(tiny: str, tmp_path: Path):
    with pytest.raises(DataError, match="7 problems were asked for, but there are 6"):
        run(tiny, tmp_path / "run", n_problems=7)
    with pytest.raises(DataError, match="'p0' is there more than once"):
        run(tiny, tmp_path / "run", problems=[*PROBLEMS, PROBLEMS[0]])
    with pytest.raises(ConfigError, match="n_problems: is 0"):
        run(tiny, tmp_path / "run", n_problems=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"n": 0}, "n: is 0"), ({"temperature": 0.0}, "temperature 0"), ({"workers": 0}, "workers: is 0")],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(
    tiny: str, tmp_path: Path, changed: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        run(tiny, tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


def test_a_prompt_too_long_for_the_model_leaves_no_run_behind(tiny: str, tmp_path: Path):
    long = Problem(problem_id="long", prompt="a" * 50)
    with pytest.raises(ModelError, match="'long'"):
        run(tiny, tmp_path / "run", problems=[long])
    assert run(tiny, tmp_path / "run").counts["samples"] == 18


def test_blocks_drawn_elsewhere_end_in_the_same_bytes_also_after_an_interruption(tiny: str, tmp_path: Path):
    whole = run(tiny, tmp_path / "whole")
    there = {"executor": "elsewhere:Elsewhere", "executor_options": {"block": 4}}
    made = run(tiny, tmp_path / "there", **there)
    cost = replace(whole.cost, seconds=made.cost.seconds, gpu_seconds=0.0, devices=())  # which are elsewhere
    assert made == replace(whole, folder=made.folder, cost=cost)
    stopped = {**there, "executor_options": {"block": 4, "stops_after": 2}}
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "cut", **stopped)
    resumed = run(tiny, tmp_path / "cut", **there)
    assert resumed.counts["resumed"] == 6  # the last two problems' blocks: 4 // 3 samples of one problem each
    for folder in (made.folder, resumed.folder):
        assert (folder / "rollouts.jsonl").read_bytes() == (whole.folder / "rollouts.jsonl").read_bytes()


def test_blocks_hold_all_samples_once_and_no_more_than_their_size():
    requests = [
        Request(problem_id=f"p{index}", prompt="?", sample_idxs=tuple(range(n)), done=frozenset({0, 5}) & {*range(n)})
        for index, n in enumerate((3, 3, 10, 1, 4))
    ]
    blocks = module._blocks(requests, 4)
    sizes = [sum(len(request.sample_idxs) for request in block) for block in blocks]
    assert sizes == [3, 3, 4, 4, 3, 4]  # a problem's samples stay together where they fit a block
    asked = [(request.problem_id, index) for block in blocks for request in block for index in request.sample_idxs]
    assert asked == [(request.problem_id, index) for request in requests for index in request.sample_idxs]
    for request in (request for block in blocks for request in block):
        assert request.done == {0, 5} & {*request.sample_idxs}


def test_samples_without_a_count_of_tokens_are_counted_and_their_cost_is_not_known(tmp_path: Path):
    record = tmp_path / "record.jsonl"
    rows = [{"problem_id": f"p{index}", "prompt": "?", "sample_idx": 0, "response": "yes"} for index in range(2)]
    record.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    problems = [Problem(problem_id=f"p{index}", prompt="?") for index in range(2)]
    made = sample(problems, model=str(record), engine="replay", n=1, out=tmp_path / "out")
    assert made.counts == {"problems": 2, "samples": 2, "resumed": 0, "without a count of tokens": 2}
    assert (made.cost.prompt_tokens, made.cost.generated_tokens, made.cost.flops) == (0, 0, None)
