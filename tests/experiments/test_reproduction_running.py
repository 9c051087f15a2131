"""A reproduction of a few problems, held to what its runs say by themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.measures import accuracy_metrics
from freeprm.experiments.comparison.settings import Folders, policy_split
from freeprm.experiments.comparison.settings import test_split as split_of
from freeprm.experiments.reproduction.claims import Claim, ClaimTest, Plot, load_claims
from freeprm.experiments.reproduction.forecast import forecast
from freeprm.experiments.reproduction.measuring import SeedRuns, differing
from freeprm.experiments.reproduction.presets import Preset, load_preset
from freeprm.experiments.reproduction.running import Reproduced, reproduce
from freeprm.io.rollouts import read_rollouts
from freeprm.io.runs import read_metrics

TINY = """
extends = "embedded"
workers = 1
sizes = [2, 4]
sampling = { max_new_tokens = 160, engine_options = { workers = 1 } }
train = { n_problems = 12, n = 4 }
dev = { n_problems = 8, n = 4 }
test = { n_problems = 8, n = 4 }
[policies]
methods = ["ce"]
n = 2
[expected]
prompt_tokens = 90
response_tokens = 110
steps = 4
parameters = { "solver:base" = 8e5 }
flops_per_second = 1e10
"""
CLAIM = Claim(
    name="c", title="CE is above its reference", source="Table 4", paper="48.4 beside 45.8 %.",
    tests=(
        ClaimTest(measure="best_of_n", first="ce", second="untrained", paper=2.6),
        ClaimTest(measure="weighted_vote", first="ce", second="majority", generators="base", n=4),
        ClaimTest(measure="f1", first="ce"),
        ClaimTest(measure="inside_problems", first="ce", second="untrained"),
        ClaimTest(measure="own_answers", first="ce", second="reference", expect="not_above"),
        ClaimTest(measure="calibration", first="ce", expect="below", than=0.9),
        ClaimTest(measure="share_of_reference", first="ce", generators="small", expect="below", than=0.5),
        ClaimTest(measure="failed_checks", first="proposition_3_1", expect="not_above"),
    ),
    plot=Plot(title="F", measure="best_of_n", x_label="x", series={"CE": {"1": "untrained", "2": "ce"}}),
)  # fmt: skip
ELSEWHERE = Claim(
    name="e", title="Other domains", source="Table 5", paper="-0.1.",
    tests=(ClaimTest(measure="best_of_n", first="dpo_code", second="dpo"),),
)  # fmt: skip


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    file = tmp_path_factory.mktemp("preset") / "tiny.toml"
    file.write_text(TINY, encoding="utf-8")
    return load_preset(str(file))


@pytest.fixture(scope="module")
def made(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    out = tmp_path_factory.mktemp("reproduced")
    return reproduce(preset, [CLAIM, ELSEWHERE], out=out, seeds=[3], workers=1, command="freeprm reproduce")


@pytest.fixture(scope="module")
def runs(preset: Preset, made: Reproduced) -> SeedRuns:
    methods = {name: preset.comparison.methods[name] for name in ("untrained", "ce")}
    comparison = type(preset.comparison)(**{**_fields(preset.comparison), "methods": methods, "labels": {}})
    return SeedRuns(comparison, Folders(made.folder / "seed-3"), 3, made.folder / "verify")


def _fields(settings: object) -> dict[str, object]:
    return {name: getattr(settings, name) for name in type(settings).__dataclass_fields__}  # type: ignore[attr-defined]


def test_a_difference_of_accuracies_is_the_comparisons_own(runs: SeedRuns):
    metrics = accuracy_metrics(runs.shared.accuracies, against="untrained", seed=3)
    [own] = [
        m for m in metrics
        if m.metric == "accuracy_difference" and m.scorer == "ce - untrained" and str(m.selector).startswith("best")
    ]  # fmt: skip
    found = differing(runs, CLAIM.tests[0])
    assert found.value == pytest.approx(own.value)
    assert found.replicates is not None
    assert len(found.problems) == own.count == 8


def test_a_test_may_be_of_one_generator_and_one_n(runs: SeedRuns):
    rows = {
        (m.scorer, m.selector): m.value for m in read_metrics(runs.folders.selection("ce", split_of("base")))
        if m.metric == "accuracy" and m.n == 4 and m.group is None
    }  # fmt: skip
    [vote] = [value for (scorer, name), value in rows.items() if scorer and str(name).startswith("weighted")]
    assert differing(runs, CLAIM.tests[1]).value == pytest.approx(vote - rows[None, "majority"])


@pytest.mark.parametrize(
    ("measure", "metric"),
    [("f1", "processbench_f1"), ("first_error", "first_error_accuracy"),
     ("inside_problems", "response_auc_within_problems")],
)  # fmt: skip
def test_measures_of_steps_are_those_of_the_evaluation(runs: SeedRuns, measure: str, metric: str):
    own = []
    for generator in runs.comparison.generators:
        own += [
            m.value for m in read_metrics(runs.folders.evaluation("ce", split_of(generator)))
            if m.metric == metric and m.selector in (None, "min", "threshold=dev")
        ]  # fmt: skip
    assert len(own) == 3
    assert differing(runs, ClaimTest(measure=measure, first="ce")).value == pytest.approx(sum(own) / 3)


def test_problems_are_halved_by_their_level(runs: SeedRuns):
    easier, harder, whole = (
        differing(runs, ClaimTest(measure="best_of_n", first="ce", generators="base", n=4, half=half))
        for half in ("easier", "harder", None)
    )
    middle = np.median(list(runs.levels.values()))
    assert {runs.levels[problem] > middle for problem in easier.problems} == {False}
    assert {runs.levels[problem] > middle for problem in harder.problems} == {True}
    n, m = len(easier.problems), len(harder.problems)
    assert (n * easier.value + m * harder.value) / 8 == pytest.approx(whole.value)


def test_a_policy_is_right_as_often_as_its_graded_answers_are(runs: SeedRuns):
    answers = read_rollouts([runs.folders.graded(policy_split("ce"))]).rollouts
    assert len(answers) == 8 * 2
    right = sum(row.correct is True for row in answers) / len(answers)
    assert differing(runs, ClaimTest(measure="own_answers", first="ce")).value == pytest.approx(right)


def test_the_same_side_twice_differs_by_nothing(runs: SeedRuns):
    found = differing(runs, ClaimTest(measure="f1", first="ce", second="ce"))
    assert found.value == 0
    assert found.replicates is not None
    assert not found.replicates[~(found.replicates != found.replicates)].any()


def test_the_reference_has_a_share_of_the_bill(runs: SeedRuns):
    shares = {
        name: differing(runs, ClaimTest(measure="share_of_reference", first="ce", generators=name)).value
        for name in ("small", "base")
    }
    assert shares["base"] < shares["small"]  # it drew these responses itself, and reads some to check
    assert 0.2 < shares["small"] < 0.4  # of drawing, policy and reference, each about as much


def test_the_report_says_what_holds_and_what_was_not_tested(made: Reproduced):
    assert [(judged.claim.name, judged.verdict == "not tested") for judged in made.claims] == [
        ("c", False),
        ("e", True),
    ]
    text = (made.folder / "report.md").read_text(encoding="utf-8")
    for part in ("## Verdicts", "CE is above its reference", "+2.6", "the preset tiny has no dpo_code", "seeds 3"):
        assert part in text
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    described = json.loads((made.folder / "claims.json").read_text(encoding="utf-8"))
    assert [claim["name"] for claim in described["claims"]] == ["c", "e"]
    assert len(described["claims"][0]["outcomes"]) == len(CLAIM.tests)
    assert made.counts["not tested"] == 1


def test_a_claim_may_be_added_and_runs_stay(preset: Preset, made: Reproduced):
    model = Folders(made.folder / "seed-3").model("ce") / "model.safetensors"
    written = model.stat().st_mtime_ns
    more = Claim(
        name="m", title="t", source="s", paper="p", tests=(ClaimTest(measure="first_error", first="untrained"),)
    )
    again = reproduce(preset, [CLAIM, more], out=made.folder, seeds=[3], workers=1, command="freeprm reproduce")
    assert [judged.claim.name for judged in again.claims] == ["c", "m"]
    assert model.stat().st_mtime_ns == written


def test_a_claim_that_its_runs_cannot_decide_says_so_and_hides_no_other(preset: Preset, made: Reproduced):
    lost = Claim(name="lost", title="t", source="s", paper="p", tests=(
        ClaimTest(measure="best_of_n", first="ce", second="untrained", n=3),
    ))  # fmt: skip
    again = reproduce(preset, [CLAIM, lost], out=made.folder, seeds=[3], workers=1, command="freeprm reproduce")
    assert [judged.verdict for judged in again.claims][1] == "not tested"
    assert again.claims[1].why.startswith("ce: nothing was chosen among 3")
    assert "nothing was chosen among 3" in (made.folder / "report.md").read_text(encoding="utf-8")


def test_a_forecast_counts_what_is_there_already(preset: Preset, made: Reproduced, tmp_path: Path):
    table = forecast(preset, [CLAIM], out=tmp_path, seeds=[3])
    rows = {row[0].value: [cell.value for cell in row[1:]] for row in table.rows}
    # 12 problems x 4 responses of 110 tokens, and 12 prompts of 90, by 2 x 800,000 FLOPs a token.
    assert rows["seed-3/rollouts/train"] == ["48", "10.2 G", "1 s"]
    # The same responses: 3 passes and the reference's.
    assert rows["seed-3/methods/ce/model"] == ["48", "33.8 G", "3 s"]
    finished = forecast(preset, [CLAIM], out=made.folder, seeds=[3])
    assert {row[-1].value for row in finished.rows[:-1]} == {"done"}


def test_a_forecast_counts_the_rows_of_files_and_says_what_it_does_not_know(tmp_path: Path):
    given = tmp_path / "train.jsonl"
    given.write_text('{"prompt": "1 + 1?", "response": "2", "answer": "2"}\n' * 10, encoding="utf-8")
    (tmp_path / "given.toml").write_text(
        f'{TINY}[train]\nrollouts = ["{given}"]\n[dev]\nrollouts = ["{tmp_path / "dev.jsonl"}"]\n'
        .replace("train = { n_problems = 12, n = 4 }\n", "").replace("dev = { n_problems = 8, n = 4 }\n", ""),
        encoding="utf-8",
    )  # fmt: skip
    table = forecast(load_preset(str(tmp_path / "given.toml")), [CLAIM], out=tmp_path / "out", seeds=[0])
    rows = {row[0].value: [cell.value for cell in row[1:]] for row in table.rows}
    assert rows["seed-0/graded/train"][0] == "10"
    assert rows["seed-0/methods/ce/scores-dev"] == ["–", "–", "–"]
    assert "Not known yet, for want of their inputs: 2 runs" in table.note  # of CE and of the untrained model


def test_rollouts_that_are_not_there_are_missed_before_anything_is_run(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"real/train\.jsonl: .*scripts/real_model_data\.py"):
        reproduce(
            load_preset("small"), load_claims(["t4b"]), out=tmp_path / "out", seeds=[0], workers=1,
            command="freeprm reproduce",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
