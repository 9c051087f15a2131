"""The benchmark on GPUs, as far as it can be tested without one."""

from dataclasses import replace

from benchmarks import gpu


def test_without_a_gpu_its_rows_say_so(monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    rows = list(gpu.gpu(quick=False))
    assert [(row.ours, row.missing) for row in rows] == [(None, "no CUDA device here")] * 4
    assert [row.peer for row in rows] == [gpu.SCORING, gpu.TRAINING] * 2


def test_its_rows_can_be_computed_on_any_device(work, well_formed):
    work = replace(work, prompts=4, n=2)  # float32: without instructions for it, bfloat16 takes minutes
    well_formed(gpu.scoring(work, name="gpu/scoring", device="cpu", rounds=1))
    well_formed(gpu.training(work, name="gpu/training", device="cpu", groups_a_batch=1))
