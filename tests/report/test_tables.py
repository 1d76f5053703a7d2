"""Tables keep the protocols apart and fit a terminal, files hold everything."""

import csv
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from gdd.evaluation.row import Row
from gdd.report import compare, tables
from gdd.report.tables import Section, Terminal


def lines_of(text: str, start: str) -> list[str]:
    section = text.split(start)[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")]


def markdown(rows: list[Row]) -> str:
    return tables.page("Evaluation", tables.sections(rows, brief=False))


def printed(sections: list[Section], width: int = 100) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(Terminal(sections))
    return output.getvalue().splitlines()


def columns_of(line: str) -> list[str]:
    return re.split(r" {2,}", line.rstrip())


def test_markdown_keeps_the_protocols_apart(rows: list[Row]) -> None:
    text = markdown(rows)
    fixed, stream = lines_of(text, "fixed: exactly"), lines_of(text, "stream: new")
    for lines in (fixed, stream):
        names = [line.split("|")[1].strip().split(" (")[0] for line in lines[2:]]
        assert names == ["real:random", "pretrained", "refined", "real:all"]
    assert "| refined | 1 | 10 |" in fixed[4]
    assert "| refined | 1 | 30 |" in stream[4]
    assert "(floor, fixed)" in stream[2]
    assert "65.0 ± 6.0 (± 14.9)" in fixed[4]
    assert "| refined − pretrained | 1 | +10.0 ± 2.5 |" in lines_of(text, "fixed: difference")[2]
    n = "n = 3 student seeds (0, 1, 2)"
    for fact in (n, "recipe dc, 3 epochs (1 on all", "labels: hard", "device: cpu", "torch", "of one distillation, so"):
        assert fact in text


def test_a_note_of_several_tables_stands_below_the_last_and_one_of_a_table_below_it() -> None:
    sections = [Section(title, [tables.NO_CEILING, "of both"], ["a"], [["1"]]) for title in ("first", "second")]
    lines = printed(sections)
    assert [lines.count(note) for note in (tables.NO_CEILING, "of both")] == [2, 1]
    assert lines.index("of both") > lines.index("second")


def test_terminal_shows_names_with_brackets_and_missing_seeds(rows: list[Row]) -> None:
    named = [replace(row, source="[red]set") if row.source == "refined" else row for row in rows]
    fewer = [row for row in named if not (row.source == "pretrained" and row.seed == 2)]
    text = "\n".join(printed(tables.sections(fewer, brief=True)))
    assert "[red]set" in text
    assert "52.5 ± 3.5, n = 2" in text


ARCHS = ["resnet18-bn-w8", "convnet3-in-w24", "alexnet-bn-w8", "mlp-w128"]
# 120 characters; what tells them apart stands neither in the middle nor at an end.
LONG = [
    "/home/somebody/experiments/" + "of-the-long-winter/" * 3 + f"and-some-more/run-{run}/distilled/refine"
    for run in "12"
]


@pytest.fixture
def wide(rows: list[Row]) -> list[Row]:
    names = {"pretrained": LONG[0], "refined": LONG[1]}
    return [
        replace(row, source=names.get(row.source, row.source), arch=arch)
        for row, arch in itertools.product(rows, ARCHS)
    ]


@pytest.mark.parametrize("width", [100, 160])
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_tables_fit_a_terminal_and_no_cell_is_wrapped(command: str, width: int, wide: list[Row]) -> None:
    brief = tables.sections(wide, True) if command == "evaluate" else compare.comparison_sections(wide, LONG[0], True)
    assert len(brief) == (4 if command == "evaluate" else 2)
    for section in brief:
        lines = printed([section], width)
        assert max(map(len, lines)) <= 100
        rule = next(index for index, line in enumerate(lines) if line.startswith("─"))
        (_, *heads), body = columns_of(lines[rule - 1]), lines[rule + 1 :]
        assert {"IPC", *ARCHS} <= {*heads}
        names = set()
        for cells in section.lines:
            parts = [cells[0].split("\n"), *(cells[section.headers.index(head)].split("\n") for head in heads)]
            for name, *texts in itertools.zip_longest(*parts, fillvalue=""):
                shown, *numbers = columns_of(body.pop(0))
                head, _, tail = shown.partition("…")
                assert name.startswith(head)
                assert name.endswith(tail)
                assert numbers == [text for text in texts if text]
                names.add((name, shown))
        assert len(names) == len({name for name, _ in names}) == len({shown for _, shown in names})
        assert " ".join(section.notes).startswith(body[0])  # which may be empty


def test_a_narrow_terminal_leaves_out_columns_and_says_so(wide: list[Row]) -> None:
    section = tables.sections(wide, True)[0]
    for width, archs in ((100, ARCHS), (60, ARCHS[:1])):
        lines = printed([section], width)
        assert max(map(len, lines)) <= width
        (heads,) = (columns_of(line) for line in lines if line.startswith("trained on"))
        assert heads == ["trained on", "IPC", *archs]
        note = " ".join(map(str.strip, lines)).split("No room here for: ")[1].split(".")[0]
        assert note.split(", ") == ["images seen", "KiB", "steps", *ARCHS[len(archs) :]]
    assert "No room" not in " ".join(printed([replace(section, headers=["a"], lines=[["b"]], optional=())], 60))


def test_files(rows: list[Row], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    paths = tables.write_evaluation(folder, rows)
    assert [path.name for path in paths] == ["rows.csv", "table.md", "accuracy.png"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    with paths[0].open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, rows, strict=True):
        values = {**row.to_dict(), "versions": json.dumps(row.versions)}
        assert line == {name: "" if value is None else str(value) for name, value in values.items()}
    with Image.open(paths[2]) as image:
        assert image.width > 500
    assert tables.write_evaluation(folder, rows[:1])[2].exists()  # one bar, one seed, no interval


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_the_teachers_accuracy_stands_beside_its_students(command: str, rows: list[Row]) -> None:
    taught = [replace(row, teacher_accuracy=20.0 + row.seed) if row.source == "refined" else row for row in rows]
    taught += [replace(row, arch="mlp-w4") for row in taught]  # of the same teachers

    def text(rows: list[Row]) -> str:
        if command == "evaluate":
            return markdown(rows)
        return tables.page("Comparison", compare.comparison_sections(rows, "real:random", brief=False))

    head, _, *body = lines_of(text(taught), "fixed: exactly")
    place = [cell.strip() for cell in head.split("|")].index("teacher")
    cells = {line.split("|")[1].strip().split(" (")[0]: line.split("|")[place].strip() for line in body}
    assert {name for name, cell in cells.items() if cell} == {"refined"}
    assert cells["refined"].startswith("21.0 ± ")
    assert "teacher" not in lines_of(text(rows), "fixed: exactly")[0]


def test_weights_that_other_images_have_taught_are_told_below_the_table(rows: list[Row]) -> None:
    judge, student = "timm:test_vit.r160_in1k", "timm:test_resnet.r160_in1k"
    told = [replace(row, pretrained=(judge,)) if row.source == "refined" else row for row in rows]
    note = "Began with weights that were learned from other images: "
    assert f"{note}{judge} for refined." in markdown(told)
    told += [replace(row, arch=student, pretrained=(student, *row.pretrained)) for row in told]
    assert f"{note}{judge} for refined; {student}." in markdown(told)
    assert note not in markdown(rows)


def test_an_evaluation_without_all_real_images_says_so(rows: list[Row]) -> None:
    note = "No student was trained on all real images, so this table has no ceiling."
    assert note not in markdown(rows)
    fixed, stream = markdown([row for row in rows if row.kind != "real:all"]).split("stream: new samples")
    assert note in fixed
    assert note in stream
    # Of streams, fresh real images are another ceiling.
    fresh = [replace(row, source="fresh real", kind="real:stream", protocol="stream") for row in rows[:3]]
    fixed, stream = markdown([*rows[3:], *fresh]).split("stream: new samples")
    assert note in fixed
    assert note not in stream


def test_another_recipe_has_its_own_tables_and_picture(rows: list[Row], tmp_path: Path) -> None:
    others = [replace(row, recipe_hash="other", accuracy=1.0) for row in rows]
    names = [path.name for path in tables.write_evaluation(tmp_path, [*rows, *others])]
    assert names[2:] == ["accuracy-r-float32.png", "accuracy-other-float32.png"]
    assert len(tables.sections([*rows, *others], brief=False)) == 2 * len(tables.sections(rows, brief=False))


def test_failed_students_are_named_beside_the_mean_over_the_others(rows: list[Row], tmp_path: Path) -> None:
    def failing(row: Row) -> bool:
        return row.source == "pretrained" or (row.source, row.seed) == ("refined", 1)

    some = [replace(row, accuracy=None, failure=f"why {row.seed}") if failing(row) else row for row in rows]
    text = markdown(some)
    fixed = lines_of(text, "fixed: exactly")
    assert fixed[3].endswith("| failed |")
    # 59 and 71 are left of 59, 65, 71.
    assert "| 65.0 ± 8.5 (± 76.2), 1 of 3 failed |" in fixed[4]
    assert "31.0 ± 1.0" in fixed[2]
    assert "4 of 12 students failed and are part of no mean; rows.csv says why, of the first: why 0." in text
    # A difference of which a student failed is no value either, and counts as what failed.
    assert text.count("| refined − pretrained | 1 | failed |") == 2
    partly = [
        replace(row, accuracy=None, failure="why") if row.seed == 1 and row.source == "refined" else row for row in rows
    ]
    # 9 and 11 are left of 9, 10 and 11: Student's t with one degree of freedom at .975, 12.7, times sqrt(2) / sqrt(2).
    assert markdown(partly).count("| refined − pretrained | 1 | +10.0 ± 12.7, 1 of 3 failed |") == 2
    assert "students failed" not in markdown(rows)
    brief = "\n".join(printed(tables.sections(some, brief=True)))
    assert "65.0 ± 8.5, 1 of 3 failed" in brief
    assert tables.write_evaluation(tmp_path, some)[2].exists()
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["accuracy"], line["failure"]) for line in lines if line["source"] == "pretrained"] == [
        ("", f"why {seed}") for seed in (0, 1, 2)
    ] * 2


def test_an_evaluation_of_failed_students_alone_has_its_tables_and_picture(rows: list[Row], tmp_path: Path) -> None:
    none = [replace(row, accuracy=None, failure="why") for row in rows]
    assert markdown(none).count("| failed |") == 10  # 8 means and 2 differences
    assert all(path.exists() for path in tables.write_evaluation(tmp_path, none))


def test_precisions_share_a_table_only_if_told_to_and_are_then_named(rows: list[Row], tmp_path: Path) -> None:
    both = [*rows, *(replace(row, precision="bfloat16") for row in rows)]
    apart, mixed = (tables.sections(both, brief=False, mixed=mixed) for mixed in (False, True))
    assert len(apart) == 2 * len(tables.sections(rows, brief=False))
    assert len(mixed) == len(tables.sections(rows, brief=False))
    assert "bfloat16" not in tables.page("", apart[: len(mixed)])
    names = {line[0].split(" (")[0] for line in mixed[0].lines}
    assert {name.rpartition(", ")[2] for name in names} == {"float32", "bfloat16"}
    assert [path.name for path in tables.write_evaluation(tmp_path, both, mixed=True)][2:] == ["accuracy.png"]


def test_a_terminal_says_a_note_once_below_the_last_table_that_has_it() -> None:
    notes = {"a": ["of all", "of a"], "b": ["of all", "of a and b"], "c": ["of c"]}
    notes["a"].append("of a and b")
    lines = printed([Section(title, said, ["name"], [["x"]]) for title, said in notes.items()])
    assert [line.rstrip() for line in lines if line.strip() in ("a", "b", "c") or line.startswith("of")] == [
        *("a", "of a"),
        *("b", "of all", "of a and b"),
        *("c", "of c"),
    ]


def test_the_caveat_stands_once_in_a_terminal_and_below_each_table_in_markdown(
    rows: list[Row],
) -> None:
    caveat = "it says nothing about another distillation"
    sections = tables.sections(rows, brief=True)
    assert " ".join(printed(sections)).count(caveat) == 1
    assert printed(sections)[-2].endswith(f"{caveat}.")
    assert markdown(rows).count(caveat) == len(sections) > 2


def test_a_source_that_was_made_again_carries_its_hash(rows: list[Row]) -> None:
    again = [replace(row, source_hash="abcdefg", accuracy=1.0) for row in rows if row.source == "pretrained"]
    assert "pretrained (abcdef)" in markdown([*rows, *again])
    larger = [replace(row, ipc=10) for row in again]
    assert "abcdef" not in markdown([*rows, *larger])


def test_ceilings_of_different_epochs_are_told_apart(rows: list[Row]) -> None:
    longer = [replace(row, epochs=1000, accuracy=99.0) for row in rows if row.kind == "real:all"]
    lines = [line.split("|") for line in lines_of(markdown([*rows, *longer]), "fixed: exactly")]
    assert [line[1].strip() for line in lines[-2:]] == [
        "real:all, 1 epoch (ceiling)",
        "real:all, 1,000 epochs (ceiling)",
    ]
    assert [line[-2].split()[0] for line in lines[-2:]] == ["90.0", "99.0"]
