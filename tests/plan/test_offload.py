"""Which weights go to the GPU: by hand, and every division within its memory."""

import re

import pytest

from gguf_golf.errors import InputError
from gguf_golf.plan.budget import Memory
from gguf_golf.plan.memory import ContextMemory
from gguf_golf.plan.offload import divide

CONTEXT = ContextMemory({0: 10, 1: 10, 2: 10}, compute=5)
DENSE = {"token_embd.weight": 50, "output_norm.weight": 1, "output.weight": 40} | {
    f"blk.{layer}.{name}.weight": size for layer in range(3) for name, size in (("attn_q", 20), ("ffn_up", 80))
}
EXPERTS = {name.replace("ffn_up", "ffn_up_exps"): size for name, size in DENSE.items()}


def test_all_of_it_where_it_fits():
    """3 layers of 100 with caches of 10, a head of 41, a compute buffer of 5."""
    offload = divide(DENSE, Memory(376), CONTEXT)
    assert (offload.n_gpu_layers, offload.n_cpu_experts, offload.gpu_bytes, offload.cpu_bytes) == (4, 0, 376, 50)


def test_the_first_layers_stay_on_the_cpu():
    offload = divide(DENSE, Memory(375), CONTEXT)
    assert (offload.n_gpu_layers, offload.gpu_bytes, offload.cpu_bytes) == (3, 266, 150)
    assert divide(DENSE, Memory(50), CONTEXT).n_gpu_layers == 1


def test_a_tied_head_is_copied_to_the_gpu():
    tied = {name: size for name, size in DENSE.items() if name != "output.weight"}
    assert divide(tied, Memory(1000), CONTEXT).gpu_bytes == 376 - 40 + 50


def test_experts_stay_on_the_cpu_before_attention_does():
    offload = divide(EXPERTS, Memory(300), CONTEXT)
    assert (offload.n_gpu_layers, offload.n_cpu_experts, offload.gpu_bytes, offload.cpu_bytes) == (4, 1, 296, 130)
    assert divide(EXPERTS, Memory(135), CONTEXT).n_cpu_experts == 3
    offload = divide(EXPERTS, Memory(120), CONTEXT)
    assert (offload.n_gpu_layers, offload.gpu_bytes, offload.cpu_bytes) == (3, 106, 50 + 100 + 160)


def test_the_arguments_name_the_tensors_that_stay():
    memory = Memory(220, 8192, "q8_0", "q8_0")
    arguments = divide(EXPERTS, memory, CONTEXT).arguments()
    assert arguments.startswith("-c 8192 -fa on -ctk q8_0 -ctv q8_0 -ngl 4 -ot '")
    pattern = re.search("-ot '(.*)=CPU'", arguments)[1]
    assert [name for name in EXPERTS if re.search(pattern, name)] == [f"blk.{n}.ffn_up_exps.weight" for n in (0, 1)]
    assert divide(DENSE, Memory(376), CONTEXT).arguments() == "-c 4096 -ngl 4"


def test_too_little_memory_says_what_is_needed():
    with pytest.raises(InputError, match="hold nothing of this model"):
        divide(DENSE, Memory(45), CONTEXT)
