"""A file in an unpatched llama.cpp: the log-probabilities of next tokens by xllamacpp's build, against those of ours.

    python3 -m venv elsewhere && elsewhere/bin/pip install xllamacpp
    python eval/experiments/in_unpatched.py FILE.gguf --python elsewhere/bin/python

xllamacpp brings a llama.cpp of its own; it runs in another process, as two of them do not share one.
"""

import json
import subprocess
from pathlib import Path

import click
import numpy as np

from gguf_golf.runtime.session import LoadedModel

N_CONTEXT, N_TOP = 256, 20

ELSEWHERE = """
import json, sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.n_ctx, parameters.cpuparams.n_threads = sys.argv[1], int(sys.argv[3]), 1
asked = {"prompt": json.loads(sys.argv[2]), "n_predict": 1, "temperature": 0, "n_probs": int(sys.argv[4])}
found = xllamacpp.Server(parameters).handle_completions(asked)
found = json.loads(found) if isinstance(found, (str, bytes)) else found
top = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
print("\\nFOUND " + json.dumps({each["id"]: each["logprob"] for each in top}), flush=True)
"""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--python", required=True, help="An interpreter that has xllamacpp.")
@click.option("--text", default="The river rises in the hills, and", show_default=True)
def main(file: Path, python: str, text: str) -> None:
    """Compare the most likely next tokens after TEXT."""
    with LoadedModel(file) as model, model.context(N_CONTEXT, threads=1) as context:
        tokens = model.tokenize(text)
        positions = np.arange(len(tokens), dtype=np.int32)
        logits = context.decode(tokens, positions, positions == len(tokens) - 1)[0].astype(np.float64)
    ours = logits - np.logaddexp.reduce(logits)
    command = [python, "-c", ELSEWHERE, str(file), json.dumps(tokens.tolist()), str(N_CONTEXT), str(N_TOP)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if not lines:
        raise click.ClickException(
            f"it did not run there: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}"
        )
    theirs = {int(token): value for token, value in json.loads(lines[0].removeprefix("FOUND ")).items()}
    same = set(theirs) == set(np.argsort(-ours)[: len(theirs)].tolist())
    difference = max(abs(ours[token] - value) for token, value in theirs.items())
    click.echo(f"the {len(theirs)} most likely tokens are {'the same' if same else 'OTHERS'}, their log-probabilities")
    click.echo(f"differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
