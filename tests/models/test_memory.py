import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from freeprm.errors import ConfigError, ModelError
from freeprm.models import memory
from freeprm.models.loading import load_backbone
from freeprm.models.memory import check_room, read_size, room, weight_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("8GiB", 8 * 2**30), ("1.5 GB", 1_500_000_000), ("500M", 500_000_000), ("2KiB", 2048), ("77", 77), ("77B", 77)],
)
def test_a_size_is_read_with_its_unit(text, n_bytes):
    assert read_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0GiB", "-1GB", "8 gigabytes", "GiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="expected bytes above 0, such as 8GiB"):
        read_size(text)


def test_weights_take_what_they_are_loaded_in(tmp_path):
    tensors = {
        "a": torch.zeros(3, 4),  # 12 float32
        "b": torch.zeros(5, dtype=torch.bfloat16),
        "packed": torch.zeros(7, dtype=torch.int32),  # stays as it is
        "eight": torch.zeros(6, dtype=torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    kept = 7 * 4 + 6
    assert weight_bytes(tmp_path, None) == 12 * 4 + 5 * 2 + kept
    assert weight_bytes(tmp_path, torch.float32) == 17 * 4 + kept
    assert weight_bytes(tmp_path, torch.bfloat16) == 17 * 2 + kept


def test_weights_in_several_files_are_those_of_the_index(tmp_path):
    for name in ("model-1-of-2", "model-2-of-2", "consolidated"):
        save_file({name: torch.zeros(10)}, tmp_path / f"{name}.safetensors")
    names = {f"model-{n}-of-2": f"model-{n}-of-2.safetensors" for n in (1, 2)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert weight_bytes(tmp_path, None) == 2 * 10 * 4


def test_pickled_weights_take_the_size_of_their_files(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "pytorch_model.bin")
    assert 4000 <= weight_bytes(tmp_path, torch.bfloat16) < 8000
    assert weight_bytes(tmp_path / "nothing", None) == 0


def test_a_machine_has_its_memory_and_swap_or_what_its_container_may_have(tmp_path, monkeypatch):
    for name in ("meminfo", "v2", "v1"):
        (tmp_path / name).write_text("max\n")
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemAvailable:  0 kB\nSwapTotal:  24 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "v2", tmp_path / "v1", tmp_path / "none"))
    assert room(CPU) == 1024 * 1024
    (tmp_path / "v1").write_text(f"{(1 << 63) - 4096}\n")  # no limit, in version 1
    assert room(CPU) == 1024 * 1024
    (tmp_path / "v2").write_text("5000\n")
    assert room(CPU) == 5000
    monkeypatch.setattr(memory, "_MEMORY", Path("no/such/file"))
    assert room(CPU) is room(torch.device("meta")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_what_is_free_and_what_this_process_keeps():
    device = torch.device("cuda")
    before = room(device)
    torch.zeros(64 << 20, device=device)  # kept by the allocator when it is gone
    assert abs(room(device) - before) < 64 << 20


def test_what_does_not_fit_is_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(memory, "room", lambda device: 2_000_000_000)
    check_room(2_000_000_000, CPU, what="m", advice="a")
    with pytest.raises(ModelError, match=r"^m takes 16\.1 GB, but cpu has 2 GB in all; choose another$"):
        check_room(16_060_000_000, CPU, what="m", advice="choose another")
    monkeypatch.setattr(memory, "room", lambda device: None)
    check_room(1 << 60, CPU, what="m", advice="a")


def test_a_model_that_does_not_fit_is_not_loaded(tmp_path, monkeypatch):
    folder = tiny.save(tmp_path)
    monkeypatch.setattr(memory, "room", lambda device: 10_000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(ModelError, match=r"its weights alone, in float32, takes? .* GB, but cpu has 1e-05 GB in all"):
        load_backbone(str(folder))


MANY = """
import resource, numpy as np, torch
from transformers import LlamaConfig, LlamaForCausalLM
from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import score_tokens
config = LlamaConfig(vocab_size=128_256, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=4096)
model = LlamaForCausalLM(config).eval()
drawn = np.random.default_rng(0)
prompt = drawn.integers(0, 128_256, 60)
def response(n):
    ids = np.concatenate([prompt, drawn.integers(0, 128_256, n)]).astype(np.int32)
    return Encoded(name="a", ids=ids, n_prompt=60, offsets=np.zeros((n, 2), np.int32))
score_tokens(model, [response(20)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score_tokens(model, [response(2048) for _ in range(64)])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_64_responses_of_2048_tokens_under_128k_tokens_take_less_than_a_gib_besides_the_model():
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1024
