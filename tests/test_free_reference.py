"""Log-probabilities noted at sampling stand in for the reference: the same numbers, without its passes."""

from dataclasses import replace
from pathlib import Path

import pytest

from freeprm.errors import DataError
from freeprm.io.files import read_rows, write_table
from freeprm.models.reference_logprobs import CHECKED, COLUMNS
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.base import RunResult
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.stages.training import train
from freeprm.training.settings import load_settings
from rounding import near


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts of the embedded solver that carry its log-probabilities."""
    out = tmp_path_factory.mktemp("runs")
    drawn = sample(
        "arithmetic", model="solver:base", out=out / "rollouts", n_problems=12, n=8, max_new_tokens=120, workers=1,
        logprobs=True,
    )  # fmt: skip
    return grade([drawn.folder], out=out / "graded").folder


def trained(graded: Path, out: Path, **options: object) -> RunResult:
    trainer = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "use_cpu": True}
    settings = load_settings(options={"model": "solver:base", "beta": 0.5, "trainer": trainer, **options})
    return train.run([graded], replace(settings, out=out))


def test_training_takes_them_and_computes_only_what_it_checks(graded: Path, tmp_path: Path):
    free = trained(graded, tmp_path / "free")
    paid = trained(graded, tmp_path / "paid", stored_reference=False)
    assert (
        free.counts["reference taken from sampling"] == free.counts["right responses"] + free.counts["wrong responses"]
    )
    assert free.cost.scored_tokens < paid.cost.scored_tokens
    for one, other in zip(free.log, paid.log, strict=True):
        assert one["loss"] == near(other["loss"])
        assert one["margin"] == near(other["margin"])


def test_scoring_takes_them_and_gives_the_same_rewards(graded: Path, tmp_path: Path):
    folder = trained(graded, tmp_path / "prm").folder
    rows = {}
    for name, stored in (("free", True), ("paid", False)):
        prm = ImplicitPRM.from_pretrained(folder, stored_reference=stored)
        made = score([graded], prm=prm, out=tmp_path / name)
        rows[name] = [row for _, row in read_rows(made.folder / "with-reference.jsonl")]
        taken = made.counts.get("reference taken from sampling", 0)
        assert taken == (len(rows[name]) if stored else 0)
    for one, other in zip(rows["free"], rows["paid"], strict=True):
        assert one["step_scores"] == near(other["step_scores"])
        assert not {*COLUMNS} & one.keys()


def test_what_was_noted_wrongly_is_refused(graded: Path, tmp_path: Path):
    rows = [row for _, row in read_rows(graded)]
    for row in rows:
        row["token_logprobs"] = [0.8 * value - 0.2 for value in row["token_logprobs"]]  # as at another temperature
    write_table(tmp_path / "changed.jsonl", rows)
    with pytest.raises(DataError, match=r"differ from the reference's own by .*--no-stored-reference"):
        trained(tmp_path / "changed.jsonl", tmp_path / "prm")
    assert len(rows) > CHECKED
