"""The page as text, the model card and the CSV: complete, self-contained, and harmless whatever a results file says."""

import contextlib
import copy
import csv
import io
import json
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_golf.cli import cli
from gguf_golf.errors import InputError
from gguf_golf.report import write_report
from tests.report.documents import base, document, ladder, quant, task

HOSTILE = "=1+1<script>window.pwned=1</script>\"'><img src=x onerror=window.pwned=1></style>{{7*7}}|`*_\n- x"


def hostile() -> dict[str, Any]:
    """A document that says something bad wherever it may say anything."""
    answers = task(0.5, 0.4, 0.6, lost=[HOSTILE], gained=["q2"], mcnemar_p=0.1, retained=0.9)
    answers |= {"kind": HOSTILE, "mode": HOSTILE, "answers": {HOSTILE: HOSTILE}}
    bad = quant("q4", 3000, 0.02, tasks={HOSTILE: answers}, texts={HOSTILE: {"kld_mean": 0.1}, "b": {"kld_mean": 0.1}})
    bad |= {
        "file": HOSTILE + ".gguf",
        "sha256": HOSTILE,
        "recipe": HOSTILE + "\ud800",
        "tuned": HOSTILE,
        "speed": {"prompt_tps": 4},
    }
    bad["tensors"] += [{"name": f"blk.0.{HOSTILE}.weight", "type": HOSTILE, "shape": [2, 2], "bytes": 4}]
    bad["tensors"] += [{"name": HOSTILE, "type": HOSTILE, "shape": [2, 2], "bytes": 4}, {}, None]
    said = {
        "texts": [dict.fromkeys(("name", "file", "sha256", "n_ctx", "n_chunks"), HOSTILE)],
        "tasks": [dict.fromkeys(("name", "file", "sha256", "seed"), HOSTILE)],
        "speed": {HOSTILE: HOSTILE},
    }
    models = [base(file=HOSTILE, tasks={HOSTILE: answers}), bad, quant("q8", 5000, float("nan"))]
    return {**document(*models, **said), "command": HOSTILE}


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] not in ("script", "style"):
            self.text += data


def page_of(tmp_path: Path, *results: dict[str, Any]) -> Elements:
    write_report(results, tmp_path / "page.html")
    return Elements((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_the_page_holds_every_part(tmp_path: Path) -> None:
    lost = {"lost": ["q1"], "gained": [], "mcnemar_p": 0.5, "retained": 0.9, "retained_low": 0.8, "retained_high": 1.0}
    models = ladder()
    models[0]["tasks"] = {"arc": task(0.6, 0.5, 0.7)}
    models[1] |= {"tasks": {"arc": task(0.55, 0.45, 0.65, **lost)}, "recipe": "[tensors]", "bytes_zstd": 7_000_000}
    models[1]["speed"] = {"prompt_tps": 100.0, "generate_tps": 20.0, "resident_bytes": 9e6, "load_seconds": 0.1}
    models[1]["texts"] = {"code": {"kld_mean": 0.003, "kld_se": 0.001}, "prose": {"kld_mean": 0.0005}}
    page = page_of(tmp_path, document(*models, speed={"threads": 2}))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    parts = ["verdict", "plots", "table", "retained", "damage", "speed", "inside", "reproduce", "words", "tip"]
    assert [name for name in ids if name and not name.startswith("w-") and name != "every-column"] == parts
    for text in ("Questions and tasks", "[tensors]", "ba" * 32, "gguf-golf eval base.gguf", "3.00x", "Take golf-tcq3"):
        assert text in page.text
    assert not any("gguf" in text for text in re.findall(r"https?://\S+", page.text))


def test_axes_at_chance_are_one_line_until_opened(tmp_path: Path) -> None:
    models = ladder()
    for model in models:
        model["tasks"] = {name: task(0.26, 0.2, 0.33) for name in ("mmlu", "gpqa")}
    page = page_of(tmp_path, document(*models))
    assert "No verdict from mmlu, gpqa: the original itself is at chance" in page.text
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("No verdict from ") == 2, "once for the plots and once for what is retained"
    folded = html[html.index("<details><summary>No verdict from") :]
    assert folded.index("mmlu against file size") < folded.index("</details>")


def test_the_page_says_which_room_is_meant_and_which_axes_are_logarithmic(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(*ladder()))
    assert "Pick by the disk space that you have (memory: the same, and the context on top)" in page.text
    captions = re.findall(r"<figcaption><b>(.+?)</b> (.+?)</figcaption>", (tmp_path / "page.html").read_text())
    said = {title: caption for title, caption in captions if "(KL" in title or "Same next" in title}
    assert said["Damage (KL divergence)"].endswith("logarithmic") and "logarithmic" not in said["Same next token"]


def test_no_bar_flatters_a_damaged_file(tmp_path: Path) -> None:
    """Text prediction of a KLD of 1 nat retains 93%, in a vocabulary of 1000 tokens."""
    page = page_of(tmp_path, document(*ladder()))
    rows = (tmp_path / "page.html").read_text(encoding="utf-8")
    rows = rows[rows.index('id="retained"') :]
    tiny = rows[rows.index(">tiny<") :].split("</tr>")[0]
    assert "badly damaged" in tiny and tiny.count('class="bar"') == 1, "of the same next token alone"
    assert "badly damaged" in page.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(*ladder()))
    loading = {"src", "href", "action", "data", "poster", "srcset"}
    loads = [(tag, attributes) for tag, attributes in page.tags if loading & set(attributes)]
    assert all(tag == "a" and str(attributes["href"]).startswith("#w-") for tag, attributes in loads)
    assert "link" not in {tag for tag, _ in page.tags}
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'") and "'sha256-" in policy
    assert (tmp_path / "page.html").stat().st_size < 80_000


def test_hostile_results_make_harmless_files(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(hostile()))
    write_report(path, tmp_path / "page.html", markdown=tmp_path / "card.md", csv=tmp_path / "t.csv")
    page = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and tags.count("style") == 1 and "img" not in tags
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>window.pwned=1</script>" in page.text and "{{7*7}}" in page.text
    assert "not a finite number" in page.text
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    outside_code = "\n".join(line for line in card.splitlines() if not line.startswith("    "))
    assert "<" not in outside_code and not re.search(r"(?<!\\)[`*]_", outside_code)
    tables = re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE)
    assert len(tables) == 3  # the files, what they retain, their speed
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))) for cell in row]
    assert not any(cell[:1] in ("=", "+", "@") or re.match(r"-[^\d]", cell) for cell in cells)


def test_csv_holds_every_number(tmp_path: Path) -> None:
    models = ladder()
    models[1]["tasks"] = {"arc": task(0.5, 0.4, 0.6, retained=0.8)}
    models[2]["speed"] = {"generate_tps": 12.5, "generate_tps_runs": [12.0, 13.0]}
    write_report(document(*models), None, csv=tmp_path / "t.csv")
    rows = {row["file"]: row for row in csv.DictReader((tmp_path / "t.csv").open())}
    assert list(rows) == [model["file"] for model in models]
    for model in models:
        for name in ("bytes", "bpw", "ppl", "kld_mean", "kld_se", "top1", "ln_ppl_ratio"):
            cell = rows[model["file"]][name]
            assert cell == "" if model.get(name) is None else float(cell) == model[name]
    assert (rows["golf-q8.gguf"]["arc.acc"], rows["golf-q8.gguf"]["arc.acc.retained"]) == ("0.5", "0.8")
    speeds = [rows["golf-q4.gguf"][f"generate_tps{end}"] for end in ("", "_min", "_max")]
    assert speeds == ["12.5", "12.0", "13.0"]


def test_card(tmp_path: Path) -> None:
    write_report(document(*ladder()), None, markdown=tmp_path / "card.md")
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "**Take golf-tcq3.gguf (3.00 MB" in card
    assert "| golf-q4.gguf | 4.00 MB | 4.00 | 4.01 | 0.0200 ± 0.0012 |" in card
    assert "need gguf-golf's runtime: tcq3." in card
    assert "| tcq3 | 3.00 MB | 93.3 (92.5 to 94.1) | 99.5 (99.4 to 99.5) |" in card
    assert "    gguf-golf eval base.gguf" in card


def test_the_least_that_results_can_hold(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"schema": "gguf-golf/results", "version": 1, "models": [{"file": "a.gguf", "bytes": 1}]})
    assert "No verdict: nothing was measured" in page.text


def test_without_a_base_row(tmp_path: Path) -> None:
    page = page_of(tmp_path, document(quant("q4", 3000, 0.02), quant("q3", 2000, 0.2)))
    assert "Take golf-q4.gguf (3.00 kB): it rates" in page.text


def test_command(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(document(*ladder())))
    arguments = ["report", str(tmp_path / "r.json"), "-o", str(tmp_path / "p.html")]
    done = CliRunner().invoke(cli, [*arguments, "--markdown", str(tmp_path / "c.md"), "--csv", str(tmp_path / "t.csv")])
    assert done.exit_code == 0 and "p.html" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.md", "p.html", "r.json", "t.csv"]


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("my notes")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(document(*ladder()), tmp_path / "file" / "page.html")
    for option in ("out", "markdown", "csv"):
        with pytest.raises(InputError, match="--force"):
            write_report(document(*ladder()), **{option: tmp_path / "file"})
    assert (tmp_path / "file").read_text() == "my notes"


def test_a_report_of_before_is_replaced_and_results_never_are(tmp_path: Path) -> None:
    results, page, card, table = (tmp_path / name for name in ("r.json", "p.html", "c.md", "t.csv"))
    results.write_text(json.dumps(document(*ladder())))
    for _ in range(2):
        write_report(results, page, markdown=card, csv=table)
    with pytest.raises(InputError, match="is also an input"):
        write_report(results, results, force=True)
    write_report(results, card, force=True)
    assert card.read_text().startswith("<!doctype html>")


def test_no_results_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results"):
        write_report([], tmp_path / "page.html")


ODD = [None, True, -1, 0, 10**400, 1e308, -1e-320, float("nan"), "", "x", [], [None], [[1]], {}, {"a": 1}]


def full() -> dict[str, Any]:
    flips = {
        "lost": ["q1"],
        "gained": ["q2"],
        "mcnemar_p": 0.5,
        "retained": 0.9,
        "retained_low": 0.8,
        "retained_high": 1,
    }
    models = ladder()[:3]
    for model in models:
        model |= {"tasks": {"arc": task(0.5, 0.4, 0.6, **flips)}, "speed": {"prompt_tps": 1.0}, "recipe": "a = 1"}
        model["tuned"] = "norms, 9 steps"
        model["texts"] = {name: {"kld_mean": 0.1, "kld_se": 0.01} for name in ("a", "b")}
        model["tensors"] = model["tensors"][:2]
        model["chunks"] = {"kld": [0.1, 0.2], "top1": [0.9, 0.8]}
    return document(*models, speed={"threads": 2}, tasks=[{"name": "arc", "sha256": "00", "seed": 1}])


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(places(full())[1:]), st.sampled_from(ODD))
def test_any_value_replaced_makes_a_page_or_a_clear_error(place: tuple[Any, ...], odd: Any) -> None:
    changed = full()
    node: Any = changed
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = copy.deepcopy(odd)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(InputError):
        out = Path(folder)
        write_report(changed, out / "p.html", markdown=out / "c.md", csv=out / "t.csv")


def test_speed_shows_medians_and_their_spread(tmp_path: Path) -> None:
    speed = {
        "generate_tps": 12.5,
        "generate_tps_runs": [12.0, 13.0, 12.5],
        "prompt_tps": 90.0,
        "prompt_tps_runs": [90.0],
    }
    page = page_of(tmp_path, document(base(), quant("q4", 3000, 0.02, speed=speed), speed={"threads": 2}))
    assert "12.5 12.0 to 13.0" in page.text and "90.0 to" not in page.text and "threads: 2" in page.text


def test_a_row_as_stored_is_not_called_the_noise_floor(tmp_path: Path) -> None:
    floor, stored = ({**quant(name, 4_000_000, 0.01), "role": "noise-floor"} for name in ("floor", "q4"))
    path, card = tmp_path / "r.json", tmp_path / "card.md"
    path.write_text(json.dumps(document(base(), floor, stored, *ladder()[1:])))
    write_report(path, tmp_path / "page.html", markdown=card)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    badges = re.findall(r'>(\S+)\.gguf <span class="badge">(.*?)<', page)
    assert badges == [("golf-bf16", "original"), ("golf-floor", "noise floor"), ("golf-q4", "as stored")]
    rows = card.read_text(encoding="utf-8")
    assert "| golf-floor.gguf (noise floor) |" in rows and "| golf-q4.gguf (as stored) |" in rows
    assert "| golf-q4.gguf |" in rows
