"""Work that other processes and machines can do: steps as data, and executors that run them (docs/scale.md)."""

from gguf_golf.steps.executor import Executor, current, executing, open_executor
from gguf_golf.steps.resident import resident
from gguf_golf.steps.step import File, Needs, Step, Task

__all__ = ["Executor", "File", "Needs", "Step", "Task", "current", "executing", "open_executor", "resident"]
