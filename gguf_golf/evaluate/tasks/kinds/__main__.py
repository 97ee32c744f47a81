"""Print the table of task kinds for docs/evaluation.md."""

from gguf_golf.evaluate.tasks.kinds import kinds_table

print(kinds_table())
