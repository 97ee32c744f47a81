"""How a file is divided between a GPU's memory and the host's: what stays on the CPU, as llama.cpp's own arguments.

llama.cpp's rules (llama-model.cpp, common.h): `-ngl N` puts the last N of the layers and the head on the GPU, counted
together, each layer with its KV cache; the input embedding stays on the host, and a head tied to it is copied. An
override `-ot` keeps tensors on the host whatever `-ngl` says: of a mixture of experts, the experts of the first layers
go there before anything else does, as only a few of them are used for a token.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gguf_golf.container.tensors import tensor_infos
from gguf_golf.errors import InputError
from gguf_golf.models import Model
from gguf_golf.plan.budget import Memory
from gguf_golf.plan.memory import ContextMemory, context_memory
from gguf_golf.plan.recipe import Recipe

_LAYER = re.compile(r"blk\.(\d+)\.")
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # as llama.cpp's --n-cpu-moe has it


@dataclass(frozen=True)
class Offload:
    """One way to divide a file: `n_gpu_layers` for -ngl, and how many of the first layers keep their experts on the
    CPU; bytes of VRAM, with cache and compute buffer, and of the weights that stay on the CPU."""

    memory: Memory
    n_gpu_layers: int
    n_cpu_experts: int
    gpu_bytes: int
    cpu_bytes: int

    def arguments(self) -> str:
        """The arguments of llama-cli and llama-server, for a shell."""
        words = [f"-c {self.memory.n_ctx}", f"-ngl {self.n_gpu_layers}"]
        if (self.memory.keys, self.memory.values) != ("f16", "f16"):
            words.insert(1, f"-fa on -ctk {self.memory.keys} -ctv {self.memory.values}")
        if self.n_cpu_experts:
            layers = "|".join(map(str, range(self.n_cpu_experts)))
            words.append(rf"-ot 'blk\.({layers}){_EXPERTS}=CPU'")
        return " ".join(words)

    def summary(self) -> str:
        """What lies where, and the arguments."""
        return (
            f"{self.gpu_bytes / 1e6:,.0f} of {self.memory.bytes / 1e6:,.0f} MB of VRAM, with {self.memory.n_ctx} "
            f"tokens of context; {self.cpu_bytes / 1e6:,.0f} MB of weights stay on the CPU: {self.arguments()}"
        )

    def to_json(self) -> dict[str, object]:
        """The same as plain data."""
        return {**asdict(self), "arguments": self.arguments()}


def offload(model: Model, recipe: Recipe, memory: Memory) -> Offload:
    """How the file that a recipe describes is divided. Raises InputError as `context_memory` and `divide` do."""
    chosen, _ = recipe.types_for(model)
    sizes = {info.name: info.n_bytes for info in tensor_infos(model, chosen, recipe.protected_for(model))}
    return divide(sizes, memory, context_memory(model, memory.n_ctx, memory.keys, memory.values))


def divide(sizes: Mapping[str, int], memory: Memory, context: ContextMemory) -> Offload:
    """The division that leaves least on the CPU: `sizes` has the bytes of each tensor of the file by name.

    Raises InputError where not even the head fits on the GPU.
    """
    layers = 1 + max((int(match[1]) for name in sizes if (match := _LAYER.match(name))), default=-1)
    whole, experts, head = [0] * layers, [0] * layers, 0
    for name, size in sizes.items():
        if match := _LAYER.match(name):
            whole[int(match[1])] += size
            if re.search(_EXPERTS, name):
                experts[int(match[1])] += size
        elif name.startswith("output"):
            head += size
    embedding = sum(size for name, size in sizes.items() if name.startswith("token_embd.weight"))
    if "output.weight" not in sizes:
        head += embedding
    cached = [size + context.cache_of.get(layer, 0) for layer, size in enumerate(whole)]
    # most on the GPU first: experts leave it one layer after the other, then, without any experts, whole layers do
    tried = [(layers + 1, n_cpu_experts) for n_cpu_experts in range(layers + 1 if any(experts) else 1)]
    tried += [(n, layers if any(experts) else 0) for n in range(layers, 0, -1)]
    for n_gpu_layers, n_cpu_experts in tried:
        first = layers + 1 - n_gpu_layers
        kept = sum(experts[first:n_cpu_experts])
        gpu = context.compute + head + sum(cached[first:]) - kept
        if gpu <= memory.bytes:
            cpu = sum(whole[:first]) + kept + embedding
            return Offload(memory, n_gpu_layers, n_cpu_experts, gpu, cpu)
    raise InputError(
        f"{memory.bytes / 1e6:,.0f} MB of VRAM hold nothing of this model: its head and the compute buffer take "
        f"{(context.compute + head) / 1e6:,.0f} MB"
    )
