"""Published numbers: the catalogue is the papers', verdicts follow from students, and the page is what they give."""

import math
import runpy
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from commands import ROOT
from test_configs import ARCHS, paper_tables

from gdd import published
from gdd.cli.main import parse_config
from gdd.config import ConfigError, EvaluateConfig, RecipeConfig
from gdd.data.readers import open_dataset
from gdd.data.spec import KNOWN
from gdd.evaluation.grid import read_rows
from gdd.evaluation.recipe import Conditions
from gdd.formats import dc_mtt
from gdd.models import registry
from gdd.pipeline import reproduce
from gdd.published import Cell, Paper, Row, Student
from gdd.report import verdicts
from gdd.sampling import generator_file, set_file
from gdd.sampling.sample import sample_set
from gdd.sampling.set_file import SyntheticSet
from gdd.zoo import sha256

POOL = "2402.13007"


def student(way: str = "plain", seed: int = 0, correct: int = 250, failed: bool = False) -> Student:
    """Return one of 1,000 test images."""
    return Student("it", way, "mlp", seed, correct, 1000, failed, None, 0.1, 1.0, "float32", "cpu", "2", None, "a", "b")


def cell(published_value: float, ways: tuple[str, ...] = ("plain",), released: tuple[str, ...] = ()) -> Cell:
    row = Row("row", 1, (published_value,), ways, set="it", released=released, seeds={"mlp": 3})
    return Cell("paper", "table", "cifar10", 0, row, "mlp", published_value, None)


def judged(one: Cell, *students: Student) -> verdicts.Judged:
    return verdicts.judge(one, {found.key: found for found in students})


class TestJudging:
    # 26, 27 and 28 %: mean 27, standard deviation 1, interval of half width 4.303 / sqrt(3).
    STUDENTS = tuple(student(seed=seed, correct=correct) for seed, correct in enumerate((260, 270, 280)))
    HALF = 4.302653 / math.sqrt(3)

    @pytest.mark.parametrize(
        ("value", "verdict"),
        [
            (27.0, "confirmed"),
            (27 + HALF - 0.001, "confirmed"),
            (27 - HALF + 0.001, "confirmed"),
            (27 + HALF + 0.001, "refuted"),
            (27 - HALF - 0.001, "refuted"),
        ],
    )
    def test_the_interval_decides(self, value, verdict):
        found = judged(cell(value), *self.STUDENTS)
        assert found.verdict == verdict
        assert (found.equation.mean, found.equation.half_width) == pytest.approx((27, self.HALF), rel=1e-6)

    @pytest.mark.parametrize(("value", "verdict"), [(26.0, "confirmed"), (28.0, "confirmed"), (28.01, "refuted")])
    def test_a_point_is_as_good_as_equal_however_narrow_the_interval(self, value, verdict):
        assert judged(cell(value), *(student(seed=seed, correct=270) for seed in range(3))).verdict == verdict

    def test_a_published_range_counts_from_its_ends(self):
        row = replace(cell(20.0).row, up_to=25.5)
        assert judged(replace(cell(20.0), row=row), *self.STUDENTS).verdict == "confirmed"
        row = replace(cell(20.0).row, up_to=27 - self.HALF - 0.01)
        assert judged(replace(cell(20.0), row=row), *self.STUDENTS).verdict == "refuted"

    def test_an_interval_that_holds_everything_decides_nothing(self):
        wide = [student(seed=seed, correct=correct) for seed, correct in enumerate((250, 290, 330))]
        assert judged(cell(29.0), *wide).verdict == "undecided"
        assert verdicts.missing([cell(29.0, released=("half",))], {one.key: one for one in wide}, released=True) == []
        released = [replace(one, way="half") for one in wide]
        assert judged(cell(40.0, released=("half",)), *self.STUDENTS, *released).verdict == "undecided"

    def test_one_student_has_no_interval(self):
        row = replace(cell(29.0).row, seeds={"mlp": 1})
        assert judged(replace(cell(29.0), row=row), student(correct=270)).verdict == "refuted"

    def test_what_is_missing_is_not_run(self):
        assert judged(cell(27.0), *self.STUDENTS[:2]).verdict == "not run"
        one = cell(50.0, released=("half",))
        assert judged(one, *self.STUDENTS).verdict == "not run"
        assert judged(cell(27.0, released=("half",)), *self.STUDENTS).verdict == "confirmed"

    def test_the_released_code_is_asked_where_the_equation_does_not_confirm(self):
        released = [student("half", seed, 500) for seed in range(3)]
        found = judged(cell(50.0, released=("half",)), *self.STUDENTS, *released)
        assert (found.verdict, found.counts.mean) == ("as released only", 50.0)
        assert judged(cell(60.0, released=("half",)), *self.STUDENTS, *released).verdict == "refuted"

    def test_a_log_of_the_released_code_asks_for_nothing_else(self):
        log = cell(50.0, ways=(), released=("half",))
        assert judged(log, *self.STUDENTS).verdict == "not run"
        assert verdicts.missing([log], {}, released=False) == []
        assert verdicts.missing([log], {}, released=True) == log.released
        for correct, verdict in ((500, "as released only"), (520, "refuted")):
            found = judged(log, *(student("half", seed, correct) for seed in range(3)))
            assert (found.verdict, found.equation, found.counts.mean) == (verdict, None, correct / 10)

    def test_of_several_ways_the_best_counts(self):
        ways = [student(way, seed, correct) for way, correct in (("a", 300), ("b", 500)) for seed in range(3)]
        found = judged(cell(50.0, released=("a", "b")), *self.STUDENTS, *ways)
        assert (found.verdict, found.released.mean) == ("as released only", 50.0)
        assert judged(cell(50.0, released=("a", "b")), *self.STUDENTS, *ways[1:]).verdict == "not run"

    def test_a_failed_student_is_chance_as_released_and_no_value_else(self):
        failed = [student(seed=0, correct=0, failed=True), *self.STUDENTS[1:]]
        found = judged(cell(28.0), *failed)
        assert (found.equation.mean, found.equation.n, found.equation.failed) == (27.5, 2, 1)
        assert found.verdict == "undecided"
        released = [replace(one, way="half") for one in failed]
        found = judged(cell(60.0, released=("half",)), *self.STUDENTS, *released)
        assert found.released.mean == pytest.approx((10 + 27 + 28) / 3)
        gone = [student(seed=seed, failed=True) for seed in range(3)]
        assert judged(cell(28.0), *gone).verdict == "refuted"


class TestMissing:
    def test_the_released_code_is_asked_only_of_what_the_text_does_not_confirm(self):
        cells = [cell(27.0, released=("half",)), cell(60.0, released=("half",))]
        found = {one.key: one for one in TestJudging.STUDENTS}
        plain, half = cells[0].equation, cells[0].released
        assert verdicts.missing(cells, {}, released=False) == plain
        assert verdicts.missing(cells, found, released=False) == []
        assert verdicts.missing(cells[:1], found, released=True) == []
        assert verdicts.missing(cells, found, released=True) == half


class TestCatalogue:
    def test_it_is_what_the_page_of_the_paper_says(self):
        """Two transcriptions of the same tables."""
        of_page = {
            (row["row"], row["IPC"], row["iterations"], ARCHS[name]): float(row[name])
            for row in paper_tables()[1]
            for name in ARCHS
            if row.get(name, "-") != "-"
        }
        of_catalogue = {
            (one.row.name, str(one.row.ipc), str(one.row.iterations), one.student): one.published
            for table in ("table4", "table5")
            for one in published.cells(f"{POOL}/{table}")
        }
        assert len(of_page) == 126 + 90
        assert of_catalogue == of_page

    def test_sets_are_of_the_rows_images_per_class_and_iterations(self):
        paper = published.papers()[POOL]
        for one in published.cells(POOL):
            for name in {key.set for key in one.released}:
                assert (paper.ipc(name), name in paper.made) == (one.row.ipc, one.table == "table4-own-sets")
                assert one.row.ways or not name.endswith(("-2000", "-3000"))  # what the logs' code scored
            names = {key.set for key in one.equation}
            for made in (paper.made[name] for name in names - {*paper.sets}):
                assert (made.ipc, made.iterations) == (one.row.ipc, one.row.iterations)
                pooled = any(word in one.row.name for word in ("pool", "random", "main"))
                assert ("matching.pool" in made.command) == pooled
            for name in names & {*paper.sets}:
                file, place, ipc = paper.sets[name]
                assert ipc == paper.ipc(name)
                assert (f"_{ipc}ipc_" in file, ipc, 1000 * (place + 1)) == (True, one.row.ipc, one.row.iterations)
                assert file.startswith("modelpool") == ("pool" in one.row.name or "similar" in one.row.name)
            assert bool(one.equation or one.released) == (one.row.needs is None)

    def test_the_logs_hold_the_highest_of_13_temperatures_that_the_table_prints(self):
        """19 of 28 numbers of table 4 are their log's maximum, two of them cut after the second decimal."""
        logged: dict[tuple[int, int | None, str], list[float]] = {}
        for one in (one for log in range(1, 7) for one in published.cells(f"{POOL}/result{log}.txt")):
            logged.setdefault((one.row.ipc, one.row.iterations, one.student), []).append(one.published)
        printed = [
            (one.published, max(logged[found]))
            for one in published.cells(f"{POOL}/table4")
            if one.row.name == "w/ model pool & KD"
            and (found := (one.row.ipc, one.row.iterations, one.student)) in logged
        ]
        assert [len(values) for values in logged.values()] == [13] * 33 + [10]
        assert (sum(abs(one - highest) < 0.0101 for one, highest in printed), len(printed)) == (19, 28)

    @pytest.mark.parametrize("number", published.papers())
    def test_every_student_can_be_built_and_every_way_decides_another_training(self, number):
        paper = published.papers()[number]
        with torch.device("meta"):
            for arch, dataset in {(one.student, one.dataset) for one in published.cells(number)}:
                registry.build(arch, reproduce.spec_of(dataset).shape, reproduce.spec_of(dataset).num_classes)
        for dataset in {table.dataset for table in paper.tables.values()}:
            hashes = [Conditions.of(settings, reproduce.spec_of(dataset)).hash for settings in paper.ways.values()]
            assert len({*hashes}) == len(hashes)

    @pytest.mark.parametrize("number", published.papers())
    def test_commands_parse(self, number, monkeypatch):
        monkeypatch.chdir(ROOT)
        for one in published.papers()[number].made.values():
            launcher, arguments = one.command.split(" distill.py ")
            config = parse_config(shlex.split(arguments))
            assert (launcher, config.score) == ("accelerate launch", False)
            folder = config.run.root / config.name
            if one.protocol == "stream":
                assert (config.method, Path(one.path)) == ("generator", folder / "refine/generator.safetensors")
                assert (config.refine.steps, config.refine.method) == (one.iterations, one.method)
            else:
                assert (config.method, one.ipc) == ("matching", config.matching.ipc)
                steps = {*config.run.snapshots, config.matching.iterations}
                last = one.iterations == config.matching.iterations
                name = "set.safetensors" if last else f"set-{one.iterations:08d}.safetensors"
                assert (one.iterations in steps, Path(one.path)) == (True, folder / "matching" / name)

    @pytest.mark.parametrize("name", published.DATASETS)
    def test_datasets_are_as_gdd_reads_them(self, name):
        """Sizes are those that the datasets' own pages give."""
        sizes = {"mnist": (28, 10, 10_000), "fashion_mnist": (28, 10, 10_000), "svhn": (32, 10, 26_032)}
        sizes |= {"cifar10": (32, 10, 10_000), "cifar100": (32, 100, 10_000)}
        (channels, *sides), classes, flip, tested = published.DATASETS[name]
        assert (channels, flip) == (len(KNOWN[name].mean), KNOWN[name].flip)
        assert (sides, classes, tested) == ([sizes[name][0]] * 2, *sizes[name][1:])

    @pytest.mark.parametrize("number", published.papers())
    def test_every_key_is_one_of_the_catalogue(self, number):
        """A key that is not known would be left out in silence."""
        stored = yaml.safe_load((published.HOME / f"{number}.yaml").read_text())
        assert {*stored} <= {*Paper.__dataclass_fields__, "sweep"}
        for table in stored["tables"].values():
            assert {*table} <= {*published.Table.__dataclass_fields__}
            assert all({*row} <= {*Row.__dataclass_fields__} for row in table["rows"])
        for way in stored["ways"].values():
            assert {*way} <= {*EvaluateConfig.__dataclass_fields__}
            assert {*way.get("recipe", {})} <= {*RecipeConfig.__dataclass_fields__}

    @pytest.mark.parametrize("number", published.papers())
    def test_students_that_are_kept_are_of_the_ways_and_sets_that_they_name(self, number):
        paper, students = published.papers()[number], published.students(number)
        keys = [one.key for one in students]
        assert keys == sorted({*keys})
        wanted = {key: one.dataset for one in published.cells(number) for key in (*one.equation, *one.released)}
        for one in students:
            spec = reproduce.spec_of(wanted[one.key])
            assert one.recipe_hash == Conditions.of(paper.ways[one.way], spec).hash
            assert one.total == published.DATASETS[spec.name].test_images
        assert len({(one.set, one.set_hash) for one in students}) == len({one.set for one in students})

    def test_the_page_is_what_the_kept_students_give(self, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "benchmarks")
        assert (ROOT / "docs/verdicts.md").read_text() == runpy.run_path(str(ROOT / "benchmarks/verdicts.py"))["page"]()


def test_students_survive_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "HOME", tmp_path)
    found = [student(seed=1), replace(student(seed=0, failed=True), teacher_accuracy=12.5, git_revision="x,y")]
    published.write_students(tmp_path / "it.csv", found)
    assert published.students("it") == sorted(found, key=lambda one: one.key)
    text = (tmp_path / "it.csv").read_text()
    (tmp_path / "it.csv").write_text(text.replace(",250,", ",many,"))
    with pytest.raises(ConfigError, match=r"correct of .* is many, expected a number"):
        published.students("it")


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A paper with two numbers, of a set of digits; returns the folder of its file."""
    dataset = open_dataset("digits", tmp_path, val_fraction=0.0, seed=0)
    chosen = torch.cat([(dataset.train.labels == label).nonzero().flatten()[:2] for label in range(10)])
    images = dataset.train.images_u8[chosen].float() / 255
    made = SyntheticSet(images, dataset.train.labels[chosen], dataset.spec, 2, {})
    dc_mtt.write_dc(made, tmp_path / "files/set.pt")
    paper = {
        "title": "A paper", "url": "https://example.org", "files_from": "authors",
        "files": {"set.pt": sha256(tmp_path / "files/set.pt")}, "sets": {"it": ["set.pt", 0, 2]},
        "ways": {"plain": {"recipe": {"epochs": 2}}, "half": {
            "recipe": {"epochs": 2}, "teacher": "set", "kd_recipe": "released", "temperature": 0.0}},
        "causes": {"half": "the loss is halved"},
        "made": {"ours": {"path": "runs/ours.safetensors", "ipc": 2, "iterations": 3,
                          "command": "gdd distill --name ours", "takes": "a minute"},
                 "generator": {"path": str(ROOT / "gdd/zoo/digits/generator.safetensors"), "ipc": 2,
                               "iterations": 500, "method": "gan", "command": "none", "takes": "nothing"}},
        "tables": {"table1": {"dataset": "digits", "students": ["mlp-w8", "convnet-w4-d1"], "rows": [
            {"name": "first", "ipc": 2, "published": [99.0, 99.0], "set": "it", "ways": ["plain"],
             "released": ["half"], "cause": "half", "seeds": {"mlp-w8": 1, "convnet-w4-d1": 1}},
            {"name": "second", "ipc": 2, "published": [50.0, None], "ways": ["plain"], "needs": "a GPU: a command"},
            {"name": "third", "ipc": 2, "published": [60.0, None], "ways": ["plain"], "set": "ours",
             "seeds": {"mlp-w8": 1}},
            {"name": "fourth", "ipc": 2, "published": [10.0, None], "ways": ["plain"], "set": "generator",
             "seeds": {"mlp-w8": 1}}]}},
    }  # fmt: skip
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue/1.yaml").write_text(yaml.safe_dump(paper))
    monkeypatch.setattr(published, "HOME", tmp_path / "catalogue")
    monkeypatch.setitem(published.DATASETS, "digits", published.Images(dataset.spec.shape, 10, False, 359))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "files"


class TestCommand:
    def test_it_lists_what_there_is_and_what_it_would_take(self, toy, done):
        listed = done("reproduce")
        assert "1/table1" in listed
        assert "takes" in listed
        assert "2 not run" in listed
        assert "a GPU" in listed
        assert "1 min" in listed

    def test_tasks_train_what_is_missing_as_the_paper_says_and_then_as_the_code_does(self, toy, done, submitted):
        flags = ["1/table1", "--row", "first", "--files", toy, "--run.workers", 1, "--run.precision", "float32"]
        assert submitted("reproduce", *flags) == ["0/2", "1/2"] * 2
        done("reproduce", *flags, "--name", "alone")
        first, second = (
            {row.key: (row.correct, row.train_loss) for row in read_rows(Path(f"runs/{name}-1-digits/reproduce"))}
            for name in ("reproduce", "alone")
        )
        assert first == second
        assert len(first) == 4

    def test_it_trains_what_is_missing_judges_it_and_goes_on(self, toy, done):
        done = partial(done, "reproduce", "--run.workers", 1)
        told = done("1/table1", "--row", "first", "--files", toy)
        work = "train and score 2 students for 2 published numbers of digits"
        assert f"{work}, as the paper says: about 1 min" in told
        assert f"{work}, more as the released code does: about 1 min" in told
        assert "1, table1: " in told
        rows = Path("runs/reproduce-1-digits/reproduce/rows.jsonl").read_text()
        assert len(rows.splitlines()) == 4
        verdict = Path("runs/reproduce-1-digits/reproduce/verdicts.md").read_text()
        assert "refuted | not known: as released it does not come out either" in verdict
        # Nothing is trained twice; and what is kept is not trained at all.
        again = done("1", "--row", "first", "second", "third", "--student", "mlp-w8", "convnet-w4-d1", "--files", toy)
        assert "train and score 0 students" in again
        assert "waits    ours, a minute: gdd distill --name ours" in again
        assert "2 not run" in again
        assert Path("runs/reproduce-1-digits/reproduce/rows.jsonl").read_text() == rows
        maker = runpy.run_path(str(ROOT / "benchmarks/verdicts.py"))
        maker["keep"]([Path("runs/reproduce-1-digits/reproduce")])
        assert len(published.students("1")) == 4
        assert "train and score 0 students" in done("1", "--row", "first", "--name", "other")
        done("1", "--row", "first", "--name", "other", "--again", "--files", toy)
        done("1", "--row", "fourth", "--name", "stream")
        (streamed,) = read_rows(Path("runs/stream-1-digits/reproduce"))
        assert (streamed.kind, streamed.protocol, streamed.ipc, streamed.optimizer_steps) == (
            "generator",
            "stream",
            2,
            2,
        )
        # Of a set that was distilled anew, students count no more.
        Path("runs").mkdir(exist_ok=True)
        for seed in range(2):
            drawn = sample_set(generator_file.load("zoo:digits"), 2, seed)
            set_file.save(Path("runs/ours.safetensors"), replace(drawn, provenance={"iterations": 3}))
            assert "train and score 1 student for 1 published number of digits" in done(
                "1", "--row", "third", "--name", "anew"
            )
        assert len(read_rows(Path("runs/anew-1-digits/reproduce"))) == 2
        # Trained anew, they are the same to the bit.
        paper, folders = published.papers()["1"], ("runs/reproduce-1-digits/reproduce", "runs/other-1-digits/reproduce")
        first, second = (
            sorted((*one.key, one.correct, one.train_loss) for one in found)
            for found in (reproduce.students_of(paper, read_rows(Path(folder))) for folder in folders)
        )
        assert first == second

    def test_bad_input_is_told_in_a_sentence(self, toy, gdd):
        for arguments, sentence in (
            (["2"], "2 is no paper here, expected one of 1"),
            (["1/table2"], "table2 is no table of 1, expected one of table1; did you mean 'table1'?"),
            (["1", "--ipc", 3], "--ipc is 3, expected some of 2"),
            (
                ["1", "--student", "mlp-w8", "mlp-w9"],
                "--student is mlp-w8, mlp-w9, expected some of convnet-w4-d1, mlp-w8",
            ),
            (["1", "--iterations", 1000], "--iterations is 1000, expected some of none: no row says it"),
            (["1", "--evaluate.seeds", "[7]"], "a setting of evaluate is given, expected none: the papers decide them"),
            (["1", "--data.name", "mnist"], "a setting of data is given, expected none"),
            (["--again"], "--again is given without a paper"),
            (
                ["1", "--row", "first", "--dry-run"],
                "data/published/set.pt is not there, expected the file of the authors",
            ),
            (["1", "--row", "fifth"], "--row is fifth, expected some of first, fourth, second, third"),
            (
                ["1", "--row", "first", "--files", toy / "none"],
                "none/set.pt is not there, expected the file of the authors",
            ),
        ):
            code, _, error = gdd("reproduce", *arguments)
            assert code == 2
            assert sentence in error
        drawn = dc_mtt.read_dc(toy / "set.pt", open_dataset("digits", toy, val_fraction=0.0, seed=0).spec)
        Path("runs").mkdir()
        set_file.save(Path("runs/ours.safetensors"), replace(drawn, provenance={"iterations": 2}))
        code, _, error = gdd("reproduce", "1", "--row", "third", "--files", toy)
        counted = "has 2 images per class of 2 iterations, expected 2 images per class of 3 iterations"
        expected = f"runs/ours.safetensors {counted}: gdd distill --name ours"
        assert (code, expected in error) == (2, True)
        shutil.copy(ROOT / "gdd/zoo/digits/generator.safetensors", "runs/ours.safetensors")
        code, _, error = gdd("reproduce", "1", "--row", "third", "--files", toy)
        expected = "runs/ours.safetensors is not a set, expected a set: gdd distill --name ours"
        assert (code, expected in error) == (2, True)
        other = (published.HOME / "1.yaml").read_text().replace("method: gan", "method: gan + skd")
        (published.HOME / "2.yaml").write_text(other)
        code, _, error = gdd("reproduce", "2", "--row", "fourth")
        expected = "generator.safetensors has 500 steps of gan, expected 500 steps of gan + skd: none"
        assert (code, expected in error) == (2, True)
        (toy / "set.pt").write_bytes((toy / "set.pt").read_bytes() + b"x")
        code, _, error = gdd("reproduce", "1", "--files", toy)
        assert (code, "its checksum differs" in error) == (2, True)
