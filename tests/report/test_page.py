"""The page holds what the runs do, in HTML that no name in a file can break."""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_run import HOSTILE, renamed, write_audit, write_run

from gdd.cli.main import parse_config
from gdd.config import Config, ConfigError, to_plain
from gdd.data.readers import Dataset
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.report import compare, measured, runs, tables
from gdd.report.compare import Compared
from gdd.report.page import settings_in_words, sort_value, write_page
from gdd.sampling import generator_file

VOID = {"meta", "link", "img", "line", "polyline", "circle", "path"}


class Page(HTMLParser):
    """Elements in their order, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[int] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append("")
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.texts[index] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def texts_of(self, *tags: str) -> list[str]:
        return [text for (name, _), text in zip(self.elements, self.texts, strict=True) if name in tags]


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset, rows: list[Row]) -> Path:
    return write_run(tmp_path / "runs/mine", renamed(dataset), rows)


def written(dataset: Dataset, *folders: Path, mixed: bool = False) -> Page:
    out = folders[0].parent / "page.html"
    size = write_page(out, folders, lambda *_: renamed(dataset), mixed)
    assert size == out.stat().st_size
    return Page(out.read_text())


@pytest.fixture(scope="module")
def kept() -> list[Page]:
    return []


@pytest.fixture
def page(kept: list[Page], run: Path, dataset: Dataset) -> Page:
    """The page of the run, written once for all tests that only read it."""
    if not kept:
        kept.append(written(dataset, run))
    return kept[0]


def test_names_of_strangers_are_text(page: Page) -> None:
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "b" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    headings = page.texts_of("h4")
    for name in HOSTILE:
        assert headings.count(name) == 2  # of two generators
        assert any(f"synthetic {name} 1" == image["alt"] for image in page.all("img"))


def test_a_run_that_is_named_like_an_element(run: Path, dataset: Dataset, rows: list[Row]) -> None:
    named = [replace(row, source=HOSTILE[1]) if row.source == "refined" else row for row in rows]
    lines = "".join(json.dumps(row.to_dict()) + "\n" for row in named)
    (run / "evaluate/rows.jsonl").write_text(lines)
    page = written(dataset, run.rename(run.with_name("<b>&")))
    assert page.texts_of("h1", "title")[1] == "<b>&"
    assert HOSTILE[1] in page.texts_of("th")


def test_nothing_is_loaded_and_only_its_own_script_runs(page: Page) -> None:
    links = [attributes.get(name) for _, attributes in page.elements for name in ("src", "href", "action", "srcset")]
    assert {re.split("[:#]", link)[0] for link in links if link is not None} == {"data", ""}
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("script", "style"):
        (text,) = page.texts_of(tag)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.elements)


def test_it_is_ordered_and_labelled(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(level <= before + 1 for before, level in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len({*ids})
    for _, attributes in page.elements:
        assert {*attributes.get("aria-labelledby", "").split()} <= {*ids}
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= {*ids}
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert page.texts_of("h2") == ["Settings", "Samples", "Scores", "Training", "Cost", "Provenance"]


def tables_of(page: Page) -> list[list[str]]:
    """Return the cells of each table, headers first."""
    found: list[list[str]] = []
    for (tag, _), text in zip(page.elements, page.texts, strict=True):
        if tag == "table":
            found.append([])
        elif tag in ("th", "td"):
            found[-1].append(text)
    return found


def test_tables_are_those_of_the_evaluation(run: Path, dataset: Dataset, rows: list[Row]) -> None:
    page = written(dataset, run)
    sections = tables.sections(rows, brief=False)
    cells = [[cell for line in (section.headers, *section.lines) for cell in line] for section in sections]
    assert tables_of(page)[: len(cells)] == cells
    texts = page.texts_of("p")
    assert all(note in texts for section in sections for note in section.notes)
    assert {header["aria-sort"] for header in page.all("th") if header["scope"] == "col"} == {"none"}
    assert len([image for image in page.all("img") if image.get("class") == "plot"]) == 1
    assert sorted(path.name for path in (run / "evaluate").iterdir()) == ["config.json", "rows.jsonl"]


def test_tables_are_those_of_the_comparison(tmp_path: Path, dataset: Dataset, rows: list[Row]) -> None:
    folder = tmp_path / "runs/both/compare"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    names = dict.fromkeys(row.source for row in rows)
    compare.write_comparison(folder, rows, [Compared(Source(name, "set", ""), name) for name in names], None, [])
    sections = compare.read_sections(folder)
    assert sections == [
        replace(one, optional=[*one.optional]) for one in compare.comparison_sections(rows, next(iter(names)), False)
    ]
    page = written(dataset, folder)
    cells = [[cell for line in (section.headers, *section.lines) for cell in line] for section in sections]
    assert tables_of(page)[: len(cells)] == cells
    pictures = [image["src"] for image in page.all("img") if image.get("class") == "plot"]
    files = [(folder / name).read_bytes() for name in ("accuracy-ipc.png", "accuracy-seconds.png")]
    assert [base64.b64decode(source.partition(",")[2]) for source in pictures] == files
    (folder / "compare.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no compare.json: .* give its command again"):
        written(dataset, folder)


def said(page: Page) -> dict[str, list[str]]:
    """Return what is said of each term."""
    found: dict[str, list[str]] = {}
    for term, text in zip(page.texts_of("dt"), page.texts_of("dd"), strict=True):
        found.setdefault(term, []).append(text)
    return found


def test_settings_cost_and_origin(page: Page, dataset: Dataset) -> None:
    facts = said(page)
    assert facts["Distilled"] == ["digits: 10 classes, grey images of 16 × 16 pixels"] * 2
    assert facts["Length"][1] == f"{Config().refine.steps:,} steps of 32 images, learning rate 0.0005 (constant)"
    alone = "adversarial, non-saturating"
    assert facts["Loss"] == [alone, f"{alone} and 0.01 × skd, networks {', '.join(Config().refine.pool.members)}"]
    assert facts["Students"] == ["mlp-w16; seeds 0, 1, 2"]
    assert facts["Dataset fingerprint"] == [dataset.fingerprint] * 2
    assert [json.loads(text) for text in page.texts_of("pre")] == [to_plain(Config())] * 3
    made, scored = tables_of(page)[-2:]
    width = 7
    assert made[width : 2 * width][:5] == ["mine/pretrain", "50", "1,600", "100", "10.0"]
    assert made[2 * width :][4] == "12.5"
    assert scored[width:][:3] == ["mine/evaluate", "18", "54"]


def test_an_audit_is_told_with_its_table_and_picture(run: Path, dataset: Dataset) -> None:
    found = write_audit(run / "audit", dataset, generator_file.load(run / "refine").hash, label=HOSTILE[1])
    page = written(dataset, run)
    assert page.texts_of("h2")[2:5] == ["Scores", "Copies and privacy", "Training"]
    section = measured.audit_section(found)
    cells = [cell for line in (section.headers, *section.lines) for cell in line]
    assert cells in tables_of(page)
    assert "2.0 % (1.0 to 4.0) of the samples are nearer to a training image" in section.notes[0]
    assert "with an AUC of 0.610 (0.580 to 0.640)" in section.notes[1]
    texts = page.texts_of("p")
    assert all(note in texts for note in section.notes)
    assert not any("none of those shown here" in text for text in texts)
    assert base64.b64encode(b"a picture").decode() in [image["src"].partition(",")[2] for image in page.all("img")]
    assert said(page)["Audited"] == [f"generator {HOSTILE[1]}, by 1,234 samples"]
    assert said(page)["Hash of the generator"] == [found.source.hash]


def test_an_audit_of_another_generator_is_told(run: Path, dataset: Dataset) -> None:
    write_audit(run / "audit", dataset, "0123456789abcdef")
    (run / "audit/audit.png").unlink()
    assert "This generator is none of those shown here." in written(dataset, run).texts_of("p")
    alone = written(dataset, run / "audit")
    assert alone.texts_of("h2") == ["Settings", "Copies and privacy", "Provenance"]
    assert not any("none of those" in text for text in alone.texts_of("p"))
    assert alone.all("img") == []


def test_curves_are_told_in_words_too(page: Page) -> None:
    told = [svg["aria-label"] for svg in page.all("svg") if "aria-label" in svg]
    assert len(told) == 2 * 3
    assert "loss/generator: from 0.2 at step 10 to 0.04 at step 50, between 0.04 and 0.2" in told[0]


def test_of_two_stages_the_refined_samples_stand_first(run: Path, dataset: Dataset) -> None:
    def order(page: Page) -> list[str]:
        texts = page.texts_of("h3", "h2")
        return texts[texts.index("Samples") + 1 : texts.index("Scores") if "Scores" in texts else None][:2]

    assert order(written(dataset, run)) == ["mine/refine", "mine/pretrain"]
    alone = written(dataset, run / "pretrain")
    assert order(alone)[0] == "mine/pretrain"
    assert not any(text.startswith("Samples of") for text in alone.texts_of("summary"))


def test_other_data_are_not_shown_as_the_real_ones(run: Path, dataset: Dataset) -> None:
    def fewer(*_: object) -> Dataset:
        rows = dataset.train.labels.argsort()[5:]
        return replace(renamed(dataset), train=dataset.train.subset(rows))

    def missing(*_: object) -> Dataset:
        raise ConfigError("digits is not there")

    for opener, reason in ((fewer, "digits holds other images than"), (missing, "digits is not there")):
        write_page(run / "page.html", [run / "refine"], opener)
        page = Page((run / "page.html").read_text())
        assert any(text.startswith("No real images beside these") and reason in text for text in page.texts_of("p"))
        assert not any("real" in image["alt"] for image in page.all("img"))
        assert len(page.all("img")) == 100


def test_a_stage_that_has_not_ended_shows_its_curves(run: Path, dataset: Dataset) -> None:
    (run / "refine/generator.safetensors").unlink()
    page = written(dataset, run / "refine")
    assert said(page)["Result"] == ["none yet: the stage has not ended"]
    assert page.texts_of("h2") == ["Settings", "Training", "Cost", "Provenance"]


def test_a_balanced_loss_is_said_with_its_ratio_instead_of_a_weight(run: Path, dataset: Dataset) -> None:
    stage = replace(
        runs.read_stage(run / "refine", "run/refine"), config=to_plain(parse_config(["--refine.balance", "0.5"]))
    )
    loss = dict(settings_in_words(stage))["Loss"]
    assert "gradients' ratio 0.5) × skd" in loss
    assert " 0 × " not in loss


def test_settings_of_another_version_are_shown_as_they_are(run: Path, dataset: Dataset) -> None:
    other = {"gan": {"arch": "unheard of"}, "seed": 3}
    (run / "refine/config.json").write_text(json.dumps({"fingerprint": "f", "config": other}))
    page = written(dataset, run / "refine")
    assert json.loads(page.texts_of("pre")[0]) == other
    assert "Length" not in said(page)


def test_rows_of_two_precisions_share_a_table_if_told(run: Path, dataset: Dataset, rows: list[Row]) -> None:
    both = [*rows, *(replace(row, precision="bfloat16") for row in rows)]
    (run / "evaluate/rows.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in both))
    apart, shared = (written(dataset, run / "evaluate", mixed=mixed) for mixed in (False, True))
    assert len(tables_of(apart)) > len(tables_of(shared))
    assert len(apart.all("img")) == 2


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("71.3 ± 2.3 (± 5.7)", 71.3),
        ("-3.1 ± 0.4", -3.1),
        ("+10.0 ± 2.5, n = 2", 10.0),
        ("−8", -8),
        ("1,234,567.5", 1234567.5),
        ("anew: 1,250", 1250),
        ("0.048", 0.048),
        ("all", float("inf")),
        ("failed", None),
        ("", None),
        ("cpu (AMD, 2 threads)", None),
    ],
)
def test_what_a_cell_is_sorted_by(cell, value):
    assert sort_value(cell) == value


def test_folders_are_found_themselves_or_by_their_run(run: Path) -> None:
    stages = [run / "pretrain", run / "refine", run / "evaluate"]
    (run / "ensemble").mkdir()
    (run / "ensemble/metrics.jsonl").write_text("")
    assert runs.find_stages([run]) == stages
    assert runs.find_stages([run / "refine", run]) == [stages[1], stages[0], stages[2]]
    assert runs.stage_names(stages) == ["mine/pretrain", "mine/refine", "mine/evaluate"]
    assert runs.stage_names([Path("/a/x/refine"), Path("/b/x/refine")]) == ["a/x/refine", "b/x/refine"]


@pytest.mark.parametrize("name", ["", "missing", "file", "ensemble"])
def test_other_folders_are_refused(name, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble/metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / name))):
        runs.find_stages([tmp_path / name])


def test_damaged_tables_of_a_comparison_are_refused(tmp_path: Path, rows: Sequence[Row]) -> None:
    section = asdict(tables.sections(rows, brief=False)[0]) | {"lines": "none"}
    (tmp_path / "compare.json").write_text(json.dumps({"sections": [section]}))
    with pytest.raises(ConfigError, match=r"compare\.json"):
        compare.read_sections(tmp_path)
