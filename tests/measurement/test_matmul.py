"""The bare matrix product."""

from freeprm.measurement.matmul import has_bf16, matmul_work


def test_flops_are_two_a_multiplication():
    work, flops = matmul_work("bfloat16")
    assert flops == 4 * 2 * 2048**3  # four products of matrices of side 2,048
    assert callable(work)


def test_bf16_instructions_are_known_by_their_flag():
    assert has_bf16("fpu avx512_bf16 sse")
    assert has_bf16("amx_bf16")
    assert not has_bf16("avx512f avx512_bf160")
