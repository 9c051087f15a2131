"""What each device holds is what can be worked out by hand, and what autograd keeps."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from freeprm.models.encoding import Encoded
from freeprm.models.logprobs import token_logprobs
from freeprm.models.routes import prepare
from freeprm.training.footprint import MicroBatch, Precision, Spread, activation_bytes, footprint
from freeprm.training.policy import Weights, load_policy
from freeprm.training.settings import TrainSettings

SMALL = LlamaConfig(
    hidden_size=4, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    vocab_size=10, tie_word_embeddings=False,
)  # fmt: skip
"""Said to have 480 weights: 40 at each end, so 200 in each of two layers."""
MICRO = MicroBatch(n_tokens=30, n_targets=20, n_padded=50)


ALONE = Spread()


def held(weights: Weights, spread: Spread = ALONE, *, mixed: bool = False, **how):
    how = {"recomputes": False, "accumulates": True, "reads_tokens": True, "reference_reads": None, **how}
    return footprint(SMALL, weights, MICRO, spread=spread, mixed=mixed, on_cpu=False, **how)


def weights(trained: int = 480, frozen: int = 0, *, size: int = 4, copies: int = 0) -> Weights:
    return Weights(trained, frozen, size=size, trained_size=4, n_states=2, copies=copies)


def test_one_gpu_holds_sixteen_bytes_a_weight_in_float32():
    states = held(weights()).states
    assert states == (4 * 480, 0, 4 * 480, 0, 8 * 480)
    assert states.total == 16 * 480


def test_several_gpus_hold_gradients_twice_and_all_else_as_one():
    alone, four = held(weights()), held(weights(), Spread(n_devices=4))
    assert four.states == alone.states._replace(buckets=4 * 480)


def test_fsdp2_holds_a_share_and_what_is_whole_for_a_moment():
    made = held(weights(), Spread(n_devices=4, sharding="fsdp2"), mixed=True)
    # Whole in 16 bits: both ends (80) and two layers (400), and gradients of the ends and a layer (280).
    assert made.states == (4 * 480 // 4, 2 * (480 + 280), 4 * 480 // 4, 0, 8 * 480 // 4)
    assert made.loading == 4 * 480 + 4 * 480 // 4


def test_zero3_holds_sixteen_bytes_a_weight_over_all_gpus():
    states = held(weights(), Spread(n_devices=4, sharding="deepspeed_zero3"), mixed=True).states
    assert (states.parameters, states.gradients, states.optimizer) == (2 * 120, 2 * 120, 12 * 120)


def test_zero3_has_all_logits_of_padded_rows_and_others_a_block():
    zero3 = held(weights(), Spread(n_devices=4, sharding="deepspeed_zero3"), mixed=True)
    assert zero3.logits == 2 * 4 * 10 * 50
    assert held(weights()).logits == 2 * 4 * 10 * 20 + 4 * 10 * 4  # a block of all targets; the head's gradient
    assert held(weights(), reads_tokens=False).logits == 0


def test_offloaded_weights_are_in_the_machines_memory():
    spread = Spread(n_devices=2, sharding="fsdp2", offload=True)
    made = held(weights(), spread)
    assert (made.states.parameters, made.states.gradients, made.states.optimizer) == (0, 0, 0)
    assert made.host == 16 * 480 // 2


def test_gradients_of_a_single_micro_batch_come_as_its_activations_go():
    apart = held(weights(), accumulates=False)
    together = held(weights())
    passing = apart.activations + apart.logits
    assert apart.training == 12 * 480 + max(passing, 4 * 480)
    assert together.training == 12 * 480 + passing + 4 * 480


def test_the_reference_is_whole_while_it_reads():
    # 4 (4 x 4 + 3 x 8) bytes a token at the widest place of a layer.
    assert held(weights(), reference_reads=7).reference == 4 * 480 + 7 * 160
    zero3 = Spread(n_devices=4, sharding="deepspeed_zero3")
    assert held(weights(), zero3, mixed=True, reference_reads=7).reference == 2 * 480 + 7 * (80 + 8 * 10)
    assert held(weights()).reference == 0


def test_adapters_train_beside_frozen_weights():
    states = held(weights(trained=20, frozen=480, size=2)).states
    assert states == (4 * 20 + 2 * 480, 0, 4 * 20, 0, 8 * 20)


def test_an_unknown_optimizer_has_no_peak():
    made = held(weights()._replace(n_states=None))
    assert (made.training, made.peak) == (None, None)
    away = held(weights()._replace(n_states=None), Spread(n_devices=2, sharding="fsdp2", offload=True))
    assert away.peak is None


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("mixed", [False, True])
def test_activations_are_about_what_autograd_keeps(mixed, lora, tmp_path):
    sizes = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_key_value_heads": 4}
    tiny.tokenizer().save_pretrained(tmp_path)
    whole = LlamaForCausalLM(LlamaConfig(**tiny.sizes(**sizes)))
    whole.save_pretrained(tmp_path)
    model = load_policy(TrainSettings(model=str(tmp_path), lora=lora), tmp_path, torch.device("cpu"))
    ids = torch.randint(0, 300, (100,), dtype=torch.int32).numpy()
    item = Encoded(name="one", ids=ids, n_prompt=40, offsets=np.zeros((60, 2), np.int32))
    prepare(model)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        token_logprobs(model, [item])
    copies = sum(weight.numel() * 2 for weight in model.parameters()) if mixed else 0
    measured = sum(size for place, size in kept.items() if place not in own) - copies
    precision = Precision(computed=2 if mixed else 4, carried=4)
    expected = activation_bytes(whole.config, len(item.ids), precision=precision, adapters=lora > 0)
    assert expected == pytest.approx(measured, rel=0.3)
