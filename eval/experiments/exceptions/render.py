"""Write the tables and the plot of docs/byte-roi.md from the journals of the experiments.

    python -m eval.experiments.exceptions.render eval/experiments/exceptions/results.jsonl docs/byte-roi.md

A table stands between <!-- NAME --> and <!-- /NAME -->, and is replaced.
"""

import itertools
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import click

from . import absorbing, axes, codebooks, ranks, reference, rotation, rows, slots, sweep, trained, tuned, vocabulary
from .bench import BASES, RATES
from .comparison import Results
from .markdown import Lines, head, row
from .plot import plot
from .summary import TEXTS, summary


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.argument("page", type=click.Path(path_type=Path, exists=True))
def main(results: Path, page: Path) -> None:
    """Replace every table of the page, say which have no place there, and plot the sweeps into byte-roi/."""
    found = Results.read(results)
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        lines = list(table(found))
        body = "\n".join(lines) if len(lines) > 2 else "(not measured)"
        text, n = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda match, body=body: f"{match[1]}\n{body}\n\n{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
        if n != 1:
            click.echo(f"{page} has {n} places for the table {name}")
    page.write_text(text, encoding="utf-8")
    for model in found.models:
        if found.find(sweep.EXPERIMENT, model):
            folder = page.parent / "byte-roi"
            folder.mkdir(exist_ok=True)
            (folder / f"{model}.svg").write_text(plot(found, model), encoding="utf-8")


def _references(found: Results) -> Lines:
    yield from head("model", "bits", "MB", "KLD", "of a plan of these bytes")
    for model in found.models:
        for rate in RATES:
            if cells := found.find(reference.EXPERIMENT, model, base="uniform", rate=rate, fed=True):
                over = found.ratio(cells, {"plan": "planned", "fed": True})
                planned = f"{found.mean(cells) / float(over.split()[0]):.4f}" if over else ""
                yield row(model, rate, f"{cells[0]['bytes'] / 1e6:.2f}", f"{found.mean(cells):.4f}", planned)


def _steepness(found: Results) -> Lines:
    """By how many percent KLD falls for one more percent of bytes."""
    sizes = {"uniform": (1.01, 1.05, 1.1), "planned": (1.01, 1.05, 1.3)}
    columns = [f"{kind}, {100 * (size - 1):.0f}%" for kind, each in sizes.items() for size in each]
    yield from head("model", "bits", "one more bit for all", *columns)
    for model in found.models:
        for rate in BASES:
            lower, upper = ({"base": "uniform", "rate": r, "fed": True} for r in (rate, rate + 1))
            steps = [(lower, upper)]
            for kind, each in sizes.items():
                start = {"plan": kind, "rate": rate, "fed": True, "larger": 1.0}
                steps += [(start, {**start, "larger": larger}) for larger in each]
            cells = [_slope(found, model, *step) for step in steps]
            if any(cells):
                yield row(model, rate, *cells)


def _slope(found: Results, model: str, before: dict[str, object], after: dict[str, object]) -> str:
    slopes = []
    for first in found.find(reference.EXPERIMENT, model, **before):
        for second in found.find(reference.EXPERIMENT, model, **after):
            if first["seed"] == second["seed"] and second["bytes"] > first["bytes"]:
                fall = math.log(found.mean([first]) / found.mean([second]))
                slopes.append(100 * (1 - math.exp(-fall / math.log(second["bytes"] / first["bytes"]) * math.log(1.01))))
    if len(slopes) < 2:
        return f"{slopes[0]:.1f}" if slopes else ""
    return f"{statistics.mean(slopes):.1f} ± {statistics.stdev(slopes) / math.sqrt(len(slopes)):.1f}"


def _sweep(found: Results, base: str, fed: bool) -> Lines:
    yield from head("model", "exception", "bits", *(f"{100 * share:g}%" for share in sweep.SHARES))
    for model in found.models:
        for name in sweep.KINDS:
            for rate in BASES:
                against = {"plan": base, "fed": fed, **({"rate": rate} if base == "uniform" else {})}
                key = {"exception": name, "base": base, "rate": rate, "fed": fed, "bits": 8}
                cells = [
                    found.ratio(found.find(sweep.EXPERIMENT, model, share=share, **key), against)
                    for share in sweep.SHARES
                ]
                if any(cells):
                    yield row(model, name, rate, *cells)


def _rows(found: Results, text: str) -> Lines:
    """Protected rows with a residual in tcq3: of which matrices, beside planned bases and within whole budgets."""
    yield from head("model", "file", "rows of", *(f"{100 * share:g}%" for share in rows.SHARES))
    files = [("rate", rate, f"planned base of {rate} bit{'s' * (rate > 1)}, and rows") for rate in BASES]
    files += [("total", total, "") for total in rows.TOTALS]
    for model in found.models:
        for (key, value, name), where in itertools.product(files, rows.WHERE):
            asked = {key: value, "rows": where, "residual": "tcq3"}
            each = [found.find(rows.EXPERIMENT, model, share=share, **asked) for share in rows.SHARES]
            if any(each):
                ratios = [found.ratio(cells, {"plan": "planned", "fed": True}, text=text) for cells in each]
                largest = max(cell["bytes"] for cells in each for cell in cells)
                yield row(model, name or f"{largest / 1e6:.1f} MB in all", where, *ratios)


def _row_residuals(found: Results) -> Lines:
    kinds = [*rows.RESIDUALS, "tcq3"]
    yield from head("model", "bits", *sorted(kinds))
    for model in found.models:
        for rate in BASES:
            asked = {"rows": "everywhere", "rate": rate, "share": 0.01}
            cells = [
                found.ratio(
                    found.find(rows.EXPERIMENT, model, residual=kind, **asked), {"plan": "planned", "fed": True}
                )
                for kind in sorted(kinds)
            ]
            if any(cells):
                yield row(model, rate, *cells)


def _bits(found: Results) -> Lines:
    yield from head("model", "exception", *(f"{rate} bits, {bits}-bit residual" for rate in BASES for bits in (8, 4)))
    for model in found.models:
        for name in list(sweep.KINDS)[:3]:
            cells = [
                found.ratio(
                    found.find(
                        sweep.EXPERIMENT, model, exception=name, base="planned", rate=r, fed=True, bits=b, share=0.01
                    ),
                    {"plan": "planned", "fed": True},
                )
                for r in BASES
                for b in (8, 4)
            ]
            if any(cells):
                yield row(model, name, *cells)


def _where(found: Results) -> Lines:
    """Where a sweep's bytes went."""
    kinds = ("vocabulary", "attention", "mlp")
    yield from head("model", "exception", *(f"{rate} bits: {', '.join(kinds)}" for rate in BASES))
    for model in found.models:
        for name in sweep.KINDS:
            cells = []
            for rate in BASES:
                key = {"exception": name, "base": "planned", "rate": rate, "fed": True, "bits": 8, "share": 0.05}
                spent = [record["spent"] for record in found.find(sweep.EXPERIMENT, model, **key)]
                total = sum(sum(each.values()) for each in spent) or 1
                shares = [100 * sum(each.get(kind, 0) for each in spent) / total for kind in kinds]
                cells.append(" / ".join(f"{share:.0f}%" for share in shares) if spent else "")
            if any(cells):
                yield row(model, name, *cells)


def _absorbing(found: Results) -> Lines:
    yield from head("model", "variant", "base", *(f"{r} bits, over the plan" for r in BASES))
    for model in found.models:
        for variant in absorbing.VARIANTS:
            how = {**absorbing.DEFAULTS, **variant}
            cells = [
                found.ratio(
                    found.find(absorbing.EXPERIMENT, model, base="uniform", rate=rate, **how),
                    {"plan": "uniform", "fed": how["feedback"], "rate": rate},
                )
                for rate in BASES
            ]
            if any(cells):
                words = ", ".join(f"{k} {v}" for k, v in variant.items()) or "0.25% by energy, 8 bits, absorbing"
                yield row(model, words, "uniform", *cells)
        for offer, larger in itertools.product(absorbing.OFFERS, (1.0, 1.01, 1.05)):
            cells = [
                found.ratio(
                    found.find(absorbing.EXPERIMENT, model, plan=offer, rate=rate, larger=larger),
                    {"plan": "planned", "fed": True},
                )
                for rate in BASES
            ]
            if any(cells):
                yield row(model, f"plan {offer}", f"planned, {larger:g} of its size", *cells)


def _rotation(found: Results) -> Lines:
    yield from head("model", "bits", "block", "feedback", "over uniform", "slots free to drop", "scales as well")
    for model in found.models:
        for cell in _once(found, rotation.EXPERIMENT, model):
            key = cell["key"]
            cells = found.find(rotation.EXPERIMENT, model, **key)
            line = {"base": "uniform", "fed": key["fed"]}
            ratios = [found.ratio(cells, line, size) for size in ("bytes", "bytes_without_slots", "bytes_by_row")]
            yield row(model, key["rate"], key["block"], "yes" if key["fed"] else "no", *ratios)


def _slots(found: Results) -> Lines:
    yield from head("model", "bits", *(f"{n}, {word}" for n in (1, 2, 4) for word in ("paid", "added")))
    for model in found.models:
        for rate in BASES:
            cells = [
                found.ratio(
                    found.find(slots.EXPERIMENT, model, rate=rate, outliers=n, paid=paid),
                    {"plan": "uniform", "rate": rate, "fed": False},
                )
                for n in (1, 2, 4)
                for paid in (True, False)
            ]
            if any(cells):
                yield row(model, rate, *cells)


def _codebooks(found: Results) -> Lines:
    yield from head("model", "codebook", "bits", "of them codebooks", "MB", "KLD", "over uniform TCQ, plain", "fed")
    for model in found.models:
        for cell in sorted(_once(found, codebooks.EXPERIMENT, model), key=lambda c: (c["key"]["rate"], c["bytes"])):
            key = cell["key"]
            cells = found.find(codebooks.EXPERIMENT, model, **key)
            kind = "k-means" if key["books"] == 1 else "sum"
            name = f"{kind} {key['books']}x{key['bits']}, groups of {key['group']}{', shared' * key['shared']}"
            ratios = [found.ratio(cells, {"base": "uniform", "fed": fed}) for fed in (False, True)]
            share = f"{100 * cell['codebooks'] / cell['bytes']:.1f}%"
            yield row(
                model,
                name,
                f"{key['rate']:g}",
                share,
                f"{cell['bytes'] / 1e6:.2f}",
                f"{found.mean(cells):.4f}",
                *ratios,
            )


def _vocabulary(found: Results) -> Lines:
    yield from head("model", "base", "rows chosen by", *(f"{100 * share:g}%" for share in vocabulary.SHARES))
    for model in found.models:
        for name in vocabulary.BASES:
            for by in ("gain", "frequency", "head", "lookup"):
                cells = [
                    found.ratio(
                        found.find(vocabulary.EXPERIMENT, model, type=name, by=by, share=share),
                        {"experiment": vocabulary.EXPERIMENT},
                    )
                    for share in vocabulary.SHARES
                ]
                if any(cells):
                    yield row(model, name, by, *cells)


def _ranks(found: Results) -> Lines:
    tails = [f"damage in the worst {100 * tail:g}%" for tail in ranks.TAILS]
    yield from head("model", "level", "items", *tails, "Spearman between halves", "top 1% in both halves")
    for model in found.models:
        for cell in found.find(ranks.EXPERIMENT, model, ranks="tcq2")[:1]:
            for level in ("tensor", "row", "channel", "weight"):
                about = cell["ranks"][level]
                shares = [f"{100 * share:.0f}%" for share in about["share of damage"].values()]
                overlap = f"{100 * about['overlap of the top 1%']:.0f}%"
                yield row(model, level, about["items"], *shares, f"{about['spearman']:.2f}", overlap)


def _removed(found: Results) -> Lines:
    yield from head("model", "weight", "KLD without it, predicted", "measured")
    for model in found.models:
        cells = [c for c in _once(found, ranks.EXPERIMENT, model) if "removed" in c["key"] and c["seed"] == 0]
        for cell in sorted(cells, key=lambda c: -found.mean([c]))[:4]:
            where = f"{cell['matrix']} [{cell['row']}, {cell['channel']}]"
            yield row(model, where, f"{cell['predicted']:.2g}", f"{found.mean([cell]):.2g}")


def _axes(found: Results) -> Lines:
    columns = [f"{text}: {what}" for text in TEXTS.values() for what in ("KLD", "same top token", "loss added")]
    yield from head("model", "type", "MB", *columns)
    for model in found.models:
        exact = found.find(axes.EXPERIMENT, model, type="16 bit")
        for name in axes.TYPES[1:]:
            for cell in found.find(axes.EXPERIMENT, model, type=name)[:1] if exact else ():
                values = []
                for text in TEXTS:
                    added = cell[text]["loss"] - exact[0][text]["loss"]
                    values += [f"{found.mean([cell], text):.4f}", f"{100 * cell[text]['top']:.1f}%", f"{added:.4f}"]
                yield row(model, name, f"{cell['bytes'] / 1e6:.2f}", *values)


def _tuned(found: Results) -> Lines:
    yield from head(
        "model", "bits", "file", "KLD untuned", "KLD tuned", "over the plan, untuned", "over the tuned plan"
    )
    for model in found.models:
        for cell in _once(found, tuned.EXPERIMENT, model):
            key, rate = cell["key"], cell["key"]["rate"]
            is_plan = "plan" in key
            cells = found.find(tuned.EXPERIMENT, model, **key)
            before = found.find(reference.EXPERIMENT if is_plan else sweep.EXPERIMENT, model, **key)
            name = f"plan, {key['larger']:g} of the base" if is_plan else f"base and 5% {key['exception']}"
            ratios = (
                ["", ""]
                if is_plan
                else [
                    found.ratio(before, {"plan": "planned", "fed": True}),
                    found.ratio(cells, {"experiment": tuned.EXPERIMENT, "plan": "planned", "rate": rate}),
                ]
            )
            kld = f"{found.mean(before):.4f}" if before else ""
            yield row(model, rate, name, kld, f"{found.mean(cells):.4f}", *ratios)


def _trained(found: Results) -> Lines:
    """Mechanisms trained with the weights, over equally trained plain files of the same bytes."""
    yield from head("model", "bits", "trained", "MB", "KLD", "over trained plain files, wiki.test", "LAMBADA")
    plain = {"experiment": trained.EXPERIMENT, "mechanism": "none"}
    for model in found.models:
        for cell in sorted(_once(found, trained.EXPERIMENT, model), key=lambda c: (c["key"]["rate"], c["bytes"])):
            key = cell["key"]
            cells = found.find(trained.EXPERIMENT, model, **key)
            names = {"none": "plain", "norm": "norm before each layer", "branch": "8-bit branch"}
            name = names.get(key["mechanism"], key["mechanism"])
            name += f", plan of {key['larger']:g} times the bytes" if "larger" in key else ""
            ratios = ["", ""] if key["mechanism"] == "none" else [found.ratio(cells, plain, text=t) for t in TEXTS]
            yield row(model, key["rate"], name, f"{cell['bytes'] / 1e6:.2f}", f"{found.mean(cells):.4f}", *ratios)


def _once(found: Results, experiment: str, model: str) -> list:  # type: ignore[type-arg]
    """One cell of each key."""
    return list({str(cell["key"]): cell for cell in reversed(found.find(experiment, model))}.values())[::-1]


TABLES: dict[str, Callable[[Results], Lines]] = {
    "summary": lambda found: summary(found, "wiki"),
    "second domain": lambda found: summary(found, "second"),
    "references": _references,
    "steepness": _steepness,
    "planned sweep": lambda found: _sweep(found, "planned", True),
    "uniform sweep": lambda found: _sweep(found, "uniform", True),
    "plain sweep": lambda found: _sweep(found, "planned", False),
    "residual bits": _bits,
    "rows": lambda found: _rows(found, "wiki"),
    "rows, second domain": lambda found: _rows(found, "second"),
    "residuals of rows": _row_residuals,
    "where": _where,
    "absorbing": _absorbing,
    "rotation": _rotation,
    "slots": _slots,
    "codebooks": _codebooks,
    "vocabulary": _vocabulary,
    "ranks": _ranks,
    "removed": _removed,
    "axes": _axes,
    "tuned": _tuned,
    "trained": _trained,
}


if __name__ == "__main__":
    main()
