"""Checkpoints: which is gone on from, what is on disk when, and what is left of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import tiny
from freeprm.errors import RunFolderError
from freeprm.training.checkpoints import check_sharding, last_checkpoint, naming_a_full_disk


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_step": 10}'), (15, '{"global_'), (20, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_with_a_file_that_was_cut_off_is_passed_over(tmp_path, name: str):
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"a": torch.ones(100)}, folder / "model.safetensors")
        for other in ("optimizer.pt", "rng_state.pth"):
            torch.save({"a": torch.ones(100)}, folder / other)
        (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    damaged = tmp_path / "checkpoint-10" / name
    damaged.write_bytes(damaged.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=f"checkpoint-10/{name}: is damaged .*earlier checkpoint"):
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


@pytest.mark.parametrize(
    ("name", "sharded"), [("optimizer.pt", True), ("optimizer.bin", False), ("optimizer_0", False)]
)
def test_a_checkpoint_whose_optimizer_is_kept_in_another_way_is_refused(tmp_path, name: str, sharded: bool):
    (tmp_path / name).touch()
    check_sharding(tmp_path, sharded=not sharded)
    with pytest.raises(RunFolderError, match=r"FSDP or DeepSpeed.*same file of configs/accelerate"):
        check_sharding(tmp_path, sharded=sharded)


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_a_full_disk_is_named_where_torch_says_that_a_file_ended_early(tmp_path, monkeypatch, free: int):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    error, said = (RuntimeError, "unexpected pos") if free else (RunFolderError, "disk is full")
    with pytest.raises(error, match=said), naming_a_full_disk(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


def test_older_checkpoints_go_when_the_newest_is_on_disk_and_the_best_stays(make_trainer, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr("freeprm.training.checkpoints.sync_path", synced.append)
    trainer = make_trainer(tiny.rollouts(4), max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=1)
    trainer.train()
    folder = Path(trainer.args.output_dir) / "checkpoint-3"
    assert [path.name for path in folder.parent.glob("checkpoint-*")] == ["checkpoint-3"]
    # All files but the trainer's state are on disk before it is written; it, before anything is deleted.
    of_last = [path for path in synced if folder in (path, *path.parents)]
    assert set(folder.iterdir()) <= set(of_last)
    assert of_last[-2:] == [folder / "trainer_state.json", folder]
    kept = make_trainer(
        tiny.rollouts(4), max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=1, dev=tiny.rollouts(4),
        eval_strategy="steps", eval_steps=1, load_best_model_at_end=True, metric_for_best_model="margin",
        greater_is_better=False,
    )  # fmt: skip
    kept.train()
    best = Path(kept.state.best_model_checkpoint).name  # which transformers leaves alone in the end
    assert best == "checkpoint-1"
    assert [path.name for path in folder.parent.glob("checkpoint-*")] == [best]
