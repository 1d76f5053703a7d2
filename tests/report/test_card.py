"""Cards hold what their files say, in Markdown that no text of a file can break, and their code works."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from generators import PETS, save_generator
from made_run import write_audit, write_run

from gdd.cli import main
from gdd.config import Config, to_plain
from gdd.config.run import DataConfig
from gdd.evaluation import sources
from gdd.report import card, measured, subject
from gdd.report.card import clean, escaped
from gdd.report.subject import of_source
from gdd.sampling import generator_file, set_file
from gdd.sampling.set_file import SyntheticSet

HEADINGS = [
    "Use",
    "How it was made",
    "What it is worth",
    "Copies and privacy",
    "Licence of the source data",
    "Intended use",
    "Known limits",
    "Citation",
]
HOSTILE = "x\n---\nlicense: mit\n# head | `code` <script>alert(1)</script> [a](b) {{ 7 * 7 }} \\| \u202e"


def stored(path, spec=PETS, **provenance):
    """Write a set of two images of each class, and return its path."""
    labels = torch.arange(spec.num_classes).repeat_interleave(2)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *spec.shape).contiguous()
    set_file.save(path, SyntheticSet(images, labels, spec, 2, provenance))
    return path


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def headings(text):
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def cells(text):
    """Return the cells of all lines of tables, as a reader of Markdown parts them."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.fixture
def run(tmp_path, dataset, rows):
    """A run whose evaluation has scored the refined generator alone: 50, and 60 as a stream; floor 31, ceiling 90."""
    home = write_run(tmp_path / "run", dataset, [])
    loaded = generator_file.load(home / "refine")
    own = [replace(row, source_hash=loaded.hash) if row.stage == "refine" else row for row in rows]
    lines = [json.dumps(row.to_dict()) + "\n" for row in own]
    (home / "evaluate/rows.jsonl").write_text("".join(lines))
    return home


class TestFacts:
    def test_of_a_set(self, tmp_path):
        path = stored(tmp_path / "chosen.safetensors", method="herding", seed=7, seconds=90.0, device="a machine")
        assert card.write(path) == tmp_path / "chosen.md"
        text = (tmp_path / "chosen.md").read_text()
        assert headings(text) == HEADINGS
        for fact in (
            "6 labelled synthetic images, 2 of each class. They stand for pets: 3 classes, colour images of 16 × 24",
            "- **Classes:** cat, dog, eel",
            "- **Method:** herding",
            "- **Seed:** 7",
            "- **Time:** 1.5 minutes",
            "- **Machine:** a machine",
            f"- **Set's hash:** {set_file.load(path).hash}",
            "Not audited: `gdd audit FILE`",
            "pets: that of pets: fill in",
        ):
            assert fact in text

    def test_of_a_generator_its_changed_settings(self, tmp_path):
        config = Config(seed=3, data=DataConfig(val_fraction=0.25))
        save_generator(tmp_path, seed=1, config=to_plain(config), versions={"torch": "9.9"}, stage="pretrain")
        generator = generator_file.load(tmp_path)
        generator_file.save(tmp_path, generator.generator, PETS, {**generator.provenance, "seed": 3})
        text = card.write(tmp_path).read_text()
        assert "- **Settings other than the defaults:** data.val_fraction 0.25\n" in text
        assert "- **Versions:** torch 9.9" in text
        assert f"- **Weights' hash:** {generator.hash}" in text

    def test_results_of_the_run_stand_beside_floor_and_ceiling(self, run):
        text = card.write(run / "refine").read_text()
        fixed, stream = text.split("**digits, stream")
        assert [(line[0], line[-1]) for line in cells(fixed)[2:]] == [
            ("real:random (floor)", "31.0 ± 1.0 (± 2.5)"),
            ("this generator", "65.0 ± 6.0 (± 14.9)"),  # of 59, 65 and 71
            ("real:all (ceiling)", "90.0 ± 0.0 (± 0.0)"),
        ]
        assert ["this generator", "1", "30", "2.5", "3", "65.0 ± 6.0 (± 14.9)"] in cells(stream)
        assert "pretrained generator" not in text
        assert "n = 3 student seeds (0, 1, 2)" in text
        assert "95 % t-interval" in text
        assert "Not measured here" not in text
        assert "Not measured here" in card.write(run / "pretrain").read_text()

    def test_an_audit_is_told_if_it_is_of_the_file(self, run, dataset, caplog):
        found = write_audit(run / "audit", dataset, generator_file.load(run / "refine").hash)
        text = card.write(run / "refine").read_text()
        for sentence in measured.audit_notes(found):
            assert escaped(sentence) in text
        assert "Not audited" in card.write(run / "pretrain").read_text()
        assert caplog.text == ""

    @pytest.mark.parametrize("content", ["{", "[]", '{"schema": 0}', '{"schema": 1, "membership": null}'])
    def test_a_damaged_audit_is_not_told(self, run, caplog, content):
        (run / "audit").mkdir()
        (run / "audit/audit.json").write_text(content)
        assert "Not audited" in card.write(run / "refine").read_text()
        assert "audit.json" in caplog.text

    def test_chosen_real_images_are_not_called_synthetic(self, tmp_path):
        text = card.write(stored(tmp_path / "real.safetensors", method="real images")).read_text()
        assert "6 labelled real images" in text
        assert "synthetic" not in text
        assert "its images are training images of the source" in text


class TestOnTheHub:
    @staticmethod
    def parts(path, name) -> tuple[dict[str, object], str]:
        """Return the front matter of a card and the rest."""
        _, front, rest = card.hub_text(sources.read(str(path)), name).split("---\n", 2)
        return yaml.safe_load(front), rest

    def test_a_generators_card_has_what_the_hub_reads_and_what_its_run_found(self, run, dataset):
        found = write_audit(run / "audit", dataset, generator_file.load(run / "refine").hash)
        for path in (run, run / "refine", run / "refine/generator.safetensors"):
            front, rest = self.parts(path, "hub:me/small-digits")
            tags = ["dataset-distillation", "gdd"]
            assert front == {"license": "cc-by-4.0", "datasets": ["digits"], "tags": tags}
            assert rest.startswith(f"{card.MARK}\n\n# digits: hub:me/small-digits\n")
            assert ["this generator", "1", "30", "2.5", "3", "65.0 ± 6.0 (± 14.9)"] in cells(rest)
            assert escaped(measured.audit_notes(found)[0]) in rest
            assert headings(rest) == HEADINGS

    def test_a_sets_card_has_what_the_hub_reads(self, tmp_path):
        path = stored(tmp_path / "x.safetensors", replace(PETS, name="fashion_mnist"))
        front, rest = self.parts(path, "hub:datasets/me/f-2")
        assert front == {
            "license": "mit",
            "pretty_name": "f-2 (fashion_mnist)",
            "task_categories": ["image-classification"],
            "size_categories": ["n<1K"],
            "tags": ["dataset-distillation", "gdd", "synthetic"],
            "source_datasets": ["fashion_mnist"],
            "viewer": False,
        }
        assert 'gdd.load_set("hub:datasets/me/f-2")' in rest
        assert "gdd compare hub:datasets/me/f-2 --data.name fashion_mnist" in rest

    def test_a_licence_that_nobody_knows_and_a_dataset_of_ones_own_are_left_out(self, tmp_path):
        assert self.parts(save_generator(tmp_path), "hub:me/pets")[0] == {"tags": ["dataset-distillation", "gdd"]}
        assert (
            self.parts(stored(tmp_path / "x.safetensors"), "hub:datasets/me/pets")[0]
            .keys()
            .isdisjoint({"license", "source_datasets"})
        )


class TestLicences:
    @pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
    def test_of_a_known_dataset(self, name, tmp_path):
        text = card.write(stored(tmp_path / "x.safetensors", replace(PETS, name=name))).read_text()
        assert f"{name}: {escaped(subject.LICENCES[name].sentence)}" in text
        assert f"--data.name {name} " in text

    def test_images_of_ones_own_are_not_taken_for_a_known_dataset_of_their_name(self, tmp_path):
        config = {"data": {"name": "/home/alice/mnist"}}
        path = stored(tmp_path / "x.safetensors", replace(PETS, name="mnist"), config=config)
        assert "mnist: that of mnist: fill in" in card.write(path).read_text()


class TestWhere:
    def test_a_card_that_is_not_gdds_is_kept(self, tmp_path):
        path = stored(tmp_path / "notes.safetensors")
        (tmp_path / "notes.md").write_text("my notes")
        assert card.write(path) is None
        assert (tmp_path / "notes.md").read_text() == "my notes"

    def test_a_card_of_gdds_is_written_anew(self, tmp_path):
        written = card.write(stored(tmp_path / "x.safetensors", method="one"))
        card.write(stored(tmp_path / "x.safetensors", method="two"))
        assert "**Method:** two" in written.read_text()

    def test_the_file_of_a_stage_does_not_touch_the_readme_beside_it(self, tmp_path):
        (tmp_path / "README.md").write_text("a project")
        save_generator(tmp_path)
        assert card.write(tmp_path / "generator.safetensors") == tmp_path / "generator.md"
        assert (tmp_path / "README.md").read_text() == "a project"

    def test_a_run_has_one_for_each_stage(self, run):
        assert card.write_stages(run) == [run / "pretrain/README.md", run / "refine/README.md"]


class TestHostileTexts:
    @pytest.fixture
    def text(self, tmp_path, row):
        spec = replace(PETS, name=HOSTILE, class_names=(HOSTILE, "a|b", "c`d"))
        facts_of_file = dict.fromkeys(("device", "method", "stage", "fingerprint", "generator"), HOSTILE)
        path = stored(tmp_path / "x.safetensors", spec, versions={HOSTILE: HOSTILE}, **facts_of_file)
        source = sources.read(str(path))
        odd = {**dict.fromkeys(("arch", "device", "dataset", "recipe"), HOSTILE), "versions": {HOSTILE: HOSTILE}}
        rows = [replace(row, source_hash=source.hash, **odd), replace(row, kind="real:random", source="a | b", **odd)]
        return card.text(of_source(source, "hf", "x\n---\n: |\"'"), rows)

    def test_break_no_front_matter(self, text):
        lines = text.splitlines()
        assert lines[0] == "---"
        front = "\n".join(lines[1 : lines.index("---", 1)])
        found = yaml.safe_load(front)
        assert set(found) == {"license", "pretty_name", "task_categories", "size_categories", "tags", "configs"}
        assert found["license"] == "unknown"
        assert found["pretty_name"] == clean(f"x\n---\n: |\"' ({HOSTILE})")
        assert lines.count("---") == 2

    def test_break_no_heading_list_or_table(self, text):
        assert headings(text) == HEADINGS
        assert [line for line in text.splitlines() if line.startswith("# ")] == [
            f"# {escaped(HOSTILE)}: {escaped(chr(10).join(['x', '---', ': |' + chr(34) + chr(39)]))}"
        ]
        table = cells(text)
        assert {len(line) for line in table} == {6}
        assert table[2][0] == "a \\| b (floor)"
        assert sum(line.startswith("- **Classes:**") for line in text.splitlines()) == 1

    def test_hold_no_markup(self, text):
        outside = re.sub(r"<!--.*?-->", "", text.split("\n---\n", 1)[1])  # the front matter is data
        assert not re.search(r"<\w", outside)
        assert not re.search(r"(?<!\\)\]\(", outside)
        assert "{{ 7 \\* 7 }}" in outside
        assert "&lt;script&gt;" in outside
        assert all(character.isprintable() or character == "\n" for character in text)
        text.encode()

    def test_of_a_name_keep_its_code_working(self, tmp_path, monkeypatch):
        name = 'we "ird" $(x) \'```.safetensors'
        text = card.write(stored(tmp_path / name)).read_text()
        monkeypatch.chdir(tmp_path)
        (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        names = {}
        exec(code, names)
        assert len(names["images"]) == 6


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("/home/alice/runs/digits", "digits"),
            ("from /home/alice/a.pt, and ~bob/c", "from a.pt, and c"),
            (r"C:\Users\alice\runs\x", "x"),
            ("~/secret/x", "x"),
            ("https://example.org/a/b and 1/2 and a/b", "https://example.org/a/b and 1/2 and a/b"),
            ("two\nlines\tand\x1b[31m \ud800", "two lines and?[31m ?"),
        ],
    )
    def test_are_cut_to_their_last_part(self, text, shown):
        assert clean(text) == shown

    def test_are_not_in_a_card(self, tmp_path):
        home = "/home/alice/secret"
        config = to_plain(Config(seed=1, data=DataConfig(name=f"{home}/pets", root=Path(home)), name="x"))
        config["refine"]["pretrained"] = f"{home}/runs/pretrain"
        save_generator(tmp_path, seed=1, config=config, stage="refine", device=f"cpu of {home}/x", data=home + "/d")
        loaded = generator_file.load(tmp_path)
        generator_file.save(tmp_path, loaded.generator, PETS, {**loaded.provenance, "seed": 1})
        text = card.write(tmp_path).read_text()
        assert "data.name pets" in text
        assert not re.search(r"alice|secret|/home|(?<!\w)/tmp", text)
        assert str(tmp_path) not in text


class TestCode:
    @pytest.fixture
    def work(self, tmp_path, monkeypatch, generator, done):
        """A folder with a generator and everything that is made of it."""
        monkeypatch.chdir(tmp_path)
        file = generator / "generator.safetensors"
        done("sample", file, "--ipc", 2, "--out", "samples.safetensors", "--threads", 1)
        shards = ("--format", "webdataset", "--shard-size", 8, "--out", "shards")
        done("sample", file, "--ipc", 2, *shards, "--threads", 1)
        done("export", "samples.safetensors", "--to", "folder", "--out", "pngs")
        card.write(generator)
        return tmp_path

    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ("generator/README.md", "generator"),
            ("samples.md", "."),
            ("shards/README.md", "shards"),
            ("pngs/README.md", "."),
        ],
    )
    def test_of_cards_runs(self, work, text, where, monkeypatch, capsys):
        content = (work / text).read_text()
        monkeypatch.chdir(work / where)
        (code,) = blocks(content, "python")
        names = {}
        exec(compile(code, text, "exec"), names)
        shapes = {"generator": (64, 1, 16, 16), ".": (20, 1, 16, 16)}
        if text.startswith(("generator", "samples")):
            assert names["images"].shape == shapes[where]
        else:
            assert names["image"].size == (16, 16)
        for command in "".join(blocks(content, "bash")).splitlines():
            words = shlex.split(command, comments=True)
            assert words[0] == "gdd"
            planned = ["--dry-run"] if words[1] == "compare" else []
            assert main([*words[1:], *planned]) == 0

    def test_shards_stay_whole_with_their_card(self, work, done):
        assert "all as its manifest says" in done("verify", "shards")
        (work / "shards/README.md").unlink()
        again = ("--format", "webdataset", "--shard-size", 8, "--out", "shards")
        done("sample", "generator", "--ipc", 2, *again, "--threads", 1)
        assert "20 labelled synthetic images" in (work / "shards/README.md").read_text()

    def test_exported_folders_are_read_past_their_card(self, work):
        from gdd.data.readers import open_dataset

        assert len(open_dataset("pngs", val_fraction=0).spec.class_names) == 10
