"""`gdd adopt`: images and generators of other programs become sets that are scored as any other."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY
from generators import save_teacher
from PIL import Image
from programs import NOISE, SHAPE, Toy, Traced, exported, scripted
from test_end_to_end import lines

from gdd.data.spec import DatasetSpec
from gdd.report import card
from gdd.sampling import curate, ensemble_file, set_file

COUNTS = {"cat": 7, "dog": 5, "eel": 9}
PETS = DatasetSpec("pets", *SHAPE, tuple(COUNTS), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True)
GENERATED = ["--noise-dim", NOISE, "--trust"]


def make_classes(folder: Path, counts: dict[str, int], height: int = 8, width: int = 8) -> None:
    """Write images by class, each of the level of its running number."""
    level = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (width, height), (level, level, level)).save(folder / name / f"{index:03}.png")
            level += 1


def real_images(root: Path, train: int, test: int, **size: int) -> Path:
    for part, count in (("train", train), ("test", test)):
        make_classes(root / part, dict.fromkeys(COUNTS, count), **size)
    return root


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Images by class that another program has made."""
    make_classes(tmp_path / "made", COUNTS)
    return tmp_path / "made"


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / "judges", PETS)


def levels(folder: Path) -> list[int]:
    return set_file.load(folder / "set.safetensors").images[:, 0, 0, 0].tolist()


def test_images_become_a_set_with_its_card_and_its_picture(done, made, tmp_path):
    out = tmp_path / "adopted"
    assert done("adopt", made, "--ipc", 3, "--out", out, "--maker", "EDM") == (
        f"wrote {out}: 9 images, 3 of each of 3 classes\n"
    )
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "grid.png", "set.safetensors"]
    assert levels(out) == [0, 1, 2, 7, 8, 9, 12, 13, 14]  # the first of each class, in the order of their files
    with Image.open(out / "grid.png") as picture:
        assert picture.size == (2 * (3 * 9 + 1), 2 * (3 * 9 + 1))
    text = (out / card.NAME).read_text()
    stored = set_file.load(out / "set.safetensors").provenance
    for told in ("Another program made them", "**Method:** EDM", "**Imported from:** made", stored["imported_hash"]):
        assert told in text
    assert str(tmp_path) not in text


def test_shards_and_arrays_become_the_same_set(done, made, tmp_path):
    images = [(label, path) for label, name in enumerate(COUNTS) for path in sorted((made / name).iterdir())]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for number, (label, path) in enumerate(images):
            for end, content in (("png", path.read_bytes()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:04}.{end}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    pixels = np.stack([np.asarray(Image.open(path)) for _, path in images])
    np.savez(tmp_path / "x.npz", x_train=pixels, y_train=np.array([label for label, _ in images]))
    hashes = set()
    for path in (made, tmp_path / "shard.tar", tmp_path / "x.npz"):
        out = tmp_path / f"{path.stem}-out"
        done("adopt", path, "--ipc", 4, "--out", out)
        hashes.add(set_file.load(out / "set.safetensors").hash)
    assert len(hashes) == 1


def test_an_ensemble_keeps_and_chooses_among_all_images_there_are(done, made, judges, tmp_path):
    """As many as each class has: five of one, nine of another."""
    done("adopt", made, "--ipc", 2, "--out", tmp_path / "out", "--ensemble", judges, "--select", "herding")
    stored, ensemble = set_file.load(tmp_path / "out/set.safetensors"), ensemble_file.load(judges)
    first, expected = 0, []
    for count in COUNTS.values():
        of_class = torch.arange(first, first + count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
        features = curate.standardized(ensemble.features(of_class))
        expected += [first + place for place in curate.herding(features, 2).tolist()]
        first += count
    assert levels(tmp_path / "out") == expected
    assert stored.spec == PETS
    assert stored.provenance["curated"] == {
        "ensemble": ensemble.hash,
        "archs": ["mlp-w8"],
        "kept": None,
        "select": "herding",
        "pool": None,
    }


@pytest.mark.parametrize("chosen", [[], ["--select", "herding"]], ids=["first", "herding"])
def test_images_that_an_ensemble_does_not_approve_of_do_not_count(refused, made, judges, tmp_path, chosen):
    of_cats = torch.arange(7, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    approved = int((ensemble_file.load(judges).logits(of_cats).argmax(1) == 0).sum())
    flags = ["--ipc", 8, "--out", tmp_path / "out", "--ensemble", judges, "--filter", *chosen]
    known = f"of 7 samples of class 'cat' the ensemble classifies {approved} as that"
    assert f"{known} and there are no more, 8 are asked for" in refused("adopt", made, *flags)
    assert not (tmp_path / "out").exists()


def test_a_generator_becomes_a_set_and_twice_the_same(done, judges, tmp_path):
    hashes = []
    for number, path in enumerate((scripted(Toy(), tmp_path / "g.pt"), exported(Toy(), tmp_path / "g.pt2"))):
        for again in "ab":
            out = tmp_path / f"{number}{again}"
            done("adopt", path, "--ipc", 3, "--out", out, "--classes", 3, "--seed", 4, *GENERATED)
            hashes.append((out / "set.safetensors").read_bytes())
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
    first, exported_one = (set_file.load(tmp_path / name / "set.safetensors") for name in ("0a", "1a"))
    assert first.hash == exported_one.hash
    done("adopt", tmp_path / "g.pt", "--ipc", 3, "--out", tmp_path / "other", "--classes", 3, *GENERATED)
    assert set_file.load(tmp_path / "other/set.safetensors").hash != first.hash  # another seed
    chosen = ["--ensemble", judges, "--select", "herding", "--pool", 6]
    done("adopt", tmp_path / "g.pt", "--ipc", 3, "--out", tmp_path / "chosen", *chosen, *GENERATED)
    assert set_file.load(tmp_path / "chosen/set.safetensors").spec == PETS


def test_without_trust_nothing_is_opened(done, refused, tmp_path):
    """With it, the file that opening leaves is there, so the test can fail."""
    path, trace = tmp_path / "x.pt", tmp_path / "trace"
    scripted(Traced(str(trace)), path)
    flags = ["--ipc", 1, "--classes", 2, "--noise-dim", NOISE]
    for name in ("x.pt", "x.pt2", "x.pth", "x.ts"):
        other = tmp_path / name
        if other != path:
            other.write_bytes(path.read_bytes())
        line = refused("adopt", other, "--out", tmp_path / "out", *flags)
        assert f"{other} is a program, and to open it runs what its maker has written: --trust says" in line
    assert not trace.exists()
    done("adopt", path, "--out", tmp_path / "out", *flags, "--trust")
    assert trace.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--ipc", 6], "class 'dog' has 5 images, 6 are asked for"),
        (["--ipc", 0], "--ipc is 0, expected a whole number of at least 1"),
        (["--ipc", 2, "--noise-dim", 3], "--noise-dim is 3, expected none with images"),
        (["--ipc", 2, "--seed", 3], "--seed is 3, expected none with images"),
        (["--ipc", 2, "--filter"], "--filter is given, expected --ensemble with it"),
        (["--ipc", 2, "--ensemble", "x"], "--ensemble is given, expected --filter, --select or --soft-labels with it"),
        (["--ipc", 2, "--ensemble", "x", "--filter"], "x does not exist"),
        (["--ipc", 3, "--ensemble", "x", "--select", "kmeans", "--pool", 2], "--pool is 2, expected at least --ipc, 3"),
    ],
)
def test_what_does_not_go_together_is_refused(refused, made, tmp_path, flags, sentence):
    assert sentence in refused("adopt", made, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--classes", 3], "--noise-dim is not given, expected the length of the generator's noise vector"),
        (["--noise-dim", 5], "a generator needs --classes, how many it has, or --ensemble, which knows them: one of"),
        (["--noise-dim", 5, "--classes", 9], ", expected -1 (black) to 1 (white)"),  # of which it has three
    ],
)
def test_a_generator_needs_to_be_told_of(refused, tmp_path, flags, sentence):
    path = scripted(Toy(), tmp_path / "g.pt")
    assert sentence in refused("adopt", path, "--ipc", 1, "--out", tmp_path / "out", "--trust", *flags)


def test_bad_images_are_named(refused, made, judges, tmp_path):
    flags = ["--ipc", 2, "--out", tmp_path / "out"]
    assert f"{tmp_path / 'nowhere'} does not exist" in refused("adopt", tmp_path / "nowhere", *flags)
    (tmp_path / "x.bin").write_bytes(b"")
    assert "is no folder and ends in .bin, expected one of .npz" in refused("adopt", tmp_path / "x.bin", *flags)
    Image.new("RGB", (9, 8)).save(made / "cat/9.png")
    assert "holds images of 2 sizes, expected one" in refused("adopt", made, *flags)
    (made / "cat/9.png").write_bytes(b"no image")
    assert "9.png is not a readable image" in refused("adopt", made, *flags)
    (made / "cat/9.png").unlink()
    for path in (made / "eel").iterdir():
        path.unlink()
    assert f"class folder {made / 'eel'} holds no" in refused("adopt", made, *flags)
    (made / "eel").rmdir()
    line = refused("adopt", made, *flags, "--ensemble", judges, "--filter")
    assert f"{made} has the classes cat, dog, expected those of pets, cat, dog, eel, in this order" in line
    make_classes(tmp_path / "small", COUNTS, height=6)
    line = refused("adopt", tmp_path / "small", *flags, "--ensemble", judges, "--filter")
    assert "has images of shape (3, 6, 8), expected (3, 8, 8) of pets" in line


def test_a_folder_that_is_not_empty_is_left_alone(refused, made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    assert "is not an empty folder" in refused("adopt", made, "--ipc", 1, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_what_was_adopted_is_scored_and_audited(done, made, tmp_path):
    real = real_images(tmp_path / "real", train=45, test=40)
    done("adopt", made, "--ipc", 3, "--out", tmp_path / "images")
    scripted(Toy(), tmp_path / "g.pt")
    done("adopt", tmp_path / "g.pt", "--ipc", 3, "--out", tmp_path / "drawn", "--classes", 3, *GENERATED)
    flags = [*TINY, "--data.name", real, "--run.root", tmp_path / "runs", "--evaluate.seeds", "[0]", "--name", "x"]
    flags += ["--refine.pool.members", "[mlp-w4]"]  # which images of 8 pixels allow
    done("compare", tmp_path / "images", tmp_path / "drawn", *flags)
    rows = lines(tmp_path / "runs/x/compare/rows.jsonl")
    assert [row["source_hash"] for row in rows if row["kind"] == "set"] == [
        set_file.load(tmp_path / name / "set.safetensors").hash for name in ("images", "drawn")
    ]
    assert {row["dataset"] for row in rows} == {"real"}
    assert "exact copies" in done("audit", tmp_path / "images", *flags)


def test_students_of_128_pixels_train(done, tmp_path):
    """Two steps of a ResNet with a stem for large images and of a network of timm."""
    make_classes(tmp_path / "made", COUNTS, height=128, width=128)
    real = real_images(tmp_path / "real", train=3, test=1, height=128, width=128)
    done("adopt", tmp_path / "made", "--ipc", 2, "--out", tmp_path / "out")
    archs = ["resnet10-bn-w4-imagenet", "timm:test_resnet"]
    flags = [*TINY, "--data.name", real, "--run.root", tmp_path / "runs", "--evaluate.seeds", "[0]", "--name", "x"]
    short = ["--evaluate.recipe.epochs", "null", "--evaluate.recipe.steps", "2", "--evaluate.ceiling", "false"]
    done("compare", tmp_path / "out", *flags, *short, "--arch", *archs)
    rows = [row for row in lines(tmp_path / "runs/x/compare/rows.jsonl") if row["kind"] == "set"]
    assert [(row["arch"], row["optimizer_steps"], row["pretrained"]) for row in rows] == [
        (arch, 2, []) for arch in archs
    ]
    assert all(np.isfinite(row["train_loss"]) for row in rows)
