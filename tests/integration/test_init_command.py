"""gdd init: a config of differences that distil takes, an honest summary, and refusals that say how to mend images."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import TINY
from PIL import Image
from settings import holds_only_differences

from gdd.cli import summary
from gdd.cli.main import parse_config
from gdd.config import Config, to_plain


def images(folder: Path, counts: dict[str, int], side: int = 16, mode: str = "L") -> Path:
    draw = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shape = (side, side) if mode == "L" else (side, side, 3)
            Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def pets(tmp_path) -> Path:
    return images(tmp_path / "my pets", {"cat": 12, "dog": 70})


@pytest.fixture(autouse=True)
def _speed(monkeypatch):
    """A machine of known speed."""
    monkeypatch.setattr(summary, "speed", lambda *_: summary.Speed(5e10, 5e10))


def test_what_it_writes_is_a_config_of_differences_that_distils(done, pets, tmp_path):
    out = tmp_path / "pets.yaml"
    said = done("init", pets, "--out", out, "--minutes", "5")
    assert "82 to train, no test part: a fifth of each class is held out" in said.replace("images    ", "")
    assert "2, of 12 (cat) to 70 (dog) training images each" in said
    assert "16x16 (height x width)" in said
    assert "fewer than 20 images to learn from in cat" in said
    assert "uneven classes" in said
    assert f"next: gdd distill --config {out}" in said
    text = out.read_text()
    assert text.startswith(f"# command: gdd distill --config {out}\n")
    assert '# defaults that are kept: data.size null, gan.arch "dim", gan.size "small"' in text
    holds_only_differences(yaml.safe_load(text), to_plain(Config()))
    config = parse_config(["--config", str(out)])
    assert config.name == "my-pets"
    assert config.data.name == str(pets)
    assert config.evaluate.ipc == (9,)  # of 12 cats, two are for the test and one for validation
    runs = ["--run.root", tmp_path / "runs", "--evaluate.seeds", "[0]"]
    assert "warning" not in done("distill", "--config", out, *TINY, *runs)
    assert (tmp_path / "runs/my-pets/evaluate/table.md").exists()


def test_images_are_decoded_once(done, pets, tmp_path, monkeypatch):
    done("init", pets, "--out", tmp_path / "a.yaml")
    monkeypatch.setattr("gdd.data.encoded.decode", None)
    done("train-gan", "--config", tmp_path / "a.yaml", "--dry-run")


def test_a_name_that_would_steer_a_terminal_is_shown_without_its_code(done, tmp_path):
    folder = images(tmp_path / "images", {"cat\x1b[2J": 6, "dog": 9})
    said = done("init", folder, "--out", tmp_path / "a.yaml")
    assert "6 (cat?[2J) to 9 (dog)" in said
    assert "\x1b" not in said


def test_a_file_is_never_overwritten(refused, pets, tmp_path):
    out = tmp_path / "pets.yaml"
    out.write_text("mine")
    refused("init", pets, "--out", out, naming=f"{out} is there already and is not overwritten")
    assert out.read_text() == "mine"


def test_more_minutes_are_more_steps_up_to_what_so_few_images_allow(done, pets, tmp_path):
    steps = []
    for minutes in (1, 2, 600):
        out = tmp_path / f"{minutes}.yaml"
        done("init", pets, "--out", out, "--minutes", minutes)
        steps.append(parse_config(["--config", str(out)]).pretrain.steps)
    assert steps[0] < steps[1] < steps[2]
    assert steps[2] == 1500


def test_too_few_minutes_are_told_with_what_would_do(done, pets, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "speed", lambda *_: summary.Speed(1e8, 1e8))
    said = done("init", pets, "--out", tmp_path / "a.yaml", "--minutes", "1")
    steps, count = parse_config(["--config", str(tmp_path / "a.yaml")]).pretrain.steps, 59
    monkeypatch.setattr("gdd.cli.suggest._FEWEST_STEPS", 10)
    assert "1 minutes are too few" not in said  # few images are seen often in the fewest steps
    said = done("init", pets, "--out", tmp_path / "b.yaml", "--minutes", "1")
    config = parse_config(["--config", str(tmp_path / "b.yaml")])
    seen = config.pretrain.steps * config.pretrain.batch_size / count
    assert steps == 300
    assert f"1 minutes are too few: the GAN sees each image {seen:.1f} times, fewer than 20; --minutes " in said


def test_large_colour_images_are_reduced_and_get_residual_networks(done, tmp_path, monkeypatch):
    monkeypatch.setattr("gdd.cli.suggest._FEW", 10)
    folder = images(tmp_path / "photos", {"a": 8, "b": 8}, side=50, mode="RGB")
    Image.new("L", (70, 40)).save(folder / "a" / "grey.png")
    said = done("init", folder, "--out", tmp_path / "a.yaml", "--minutes", "600")
    assert "2 sizes, 40 to 50 high, 50 to 70 wide" in said
    assert "1 grey images and 16 in colour: all become colour" in said
    config = parse_config(["--config", str(tmp_path / "a.yaml")])
    assert config.data.size == (32, 32)
    assert (config.gan.arch, config.gan.loss, config.pretrain.schedule) == ("residual", "hinge", "cosine")
    assert config.refine.lr == 5e-5


def test_parts_files_and_orders_that_want_a_word_get_one(done, tmp_path):
    place = tmp_path / "numbers"
    for part in ("Training", "Testing", "valid"):
        images(place / part, {str(label): 3 for label in range(11)})
    (place / "Training/2/x.gif").write_bytes(b"")
    said = done("init", place, "--out", tmp_path / "a.yaml")
    assert f"{place}: 33 to train, 33 to test" in said
    assert f"note     {place}/valid (33 images) is not used: validation images are carved out of train" in said
    assert "1 files of" in said
    assert ": 1 .gif" in said
    assert "label 2 is class '10'" in said


def test_drawings_that_vanish_are_told(done, tmp_path):
    for name in "ab":
        (tmp_path / "icons" / name).mkdir(parents=True)
        for index in range(10):
            pixels = np.full((16, 16, 4), 0 if name == "a" else 255, np.uint8)  # black ones are seen on white
            pixels[:, :, 3] = 0
            pixels[: index + 1, :, 3] = 255
            Image.fromarray(pixels).save(tmp_path / "icons" / name / f"{index}.png")
    said = done("init", tmp_path / "icons", "--out", tmp_path / "a.yaml")
    assert "note     7 of 14 training images have one colour alone" in said


def test_a_column_of_labels_is_chosen(done, refused, tmp_path):
    place = images(tmp_path / "x", {"all": 12})
    lines = [f"{index}.png,{index % 2},{index % 3}" for index in range(12)]
    (place / "x.csv").write_text("\n".join(["file,coarse_label,fine_label", *lines]))
    refused("init", place, "--out", tmp_path / "a.yaml", naming="choose one, e.g. --data.label coarse_label")
    said = done("init", place, "--out", tmp_path / "a.yaml", "--data.label", "fine_label")
    assert "3, of 4 training images each" in said
    assert parse_config(["--config", str(tmp_path / "a.yaml")]).data.label == "fine_label"
    done("train-gan", "--config", tmp_path / "a.yaml", "--dry-run")


def test_a_folder_called_like_a_known_dataset_is_ambiguous(refused, done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mnist"):
        images(tmp_path / name, {"cat": 12, "dog": 12})
        refused("init", name, naming=f"a folder here: write ./{name} for the folder")
    assert "24 to train" in done("init", "./digits")
    assert "10 classes" in done("train-gan", "--dry-run")


def test_two_images_of_a_class_will_do(done, tmp_path):
    for part in ("train", "test"):
        images(tmp_path / "two" / part, {"a": 2, "b": 2})
    runs = ["--run.root", tmp_path / "runs", "--evaluate.ipc", "[1]"]
    done("distill", "--data.name", tmp_path / "two", "--name", "two", *TINY, *runs, "--evaluate.seeds", "[0]")
    assert (tmp_path / "runs/two/evaluate/table.md").exists()


@pytest.mark.parametrize("name", ["digits", "pets.npz"])
def test_arrays_and_names_get_a_config_too(name, done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("pets.npz", x_train=np.full((20, 28, 28), 99, np.uint8), y_train=np.arange(20) % 2)
    done("init", name)
    assert parse_config(["--config", f"{Path(name).stem}.yaml"]).data.name == name


def test_classes_and_files_that_will_not_do_are_named_with_what_to_do(refused, gdd, pets, tmp_path):
    out = ["--out", tmp_path / "a.yaml"]
    for name in ("cow", "hen"):
        images(pets, {name: 1})
    refused("init", pets, *out, naming="2 classes ('cow', 'hen') are with fewer than 3 training images; add images to")
    (pets / "hen/0.png").unlink()
    refused("init", pets, *out, naming="hen holds no .png, .jpg, .jpeg, .ppm,")
    for name in ("cow", "hen"):
        for path in (pets / name).iterdir():
            path.unlink()
        (pets / name).rmdir()
    for number, damage in ((3, lambda whole: whole[:-60]), (4, lambda whole: b"no image")):
        path = pets / f"dog/{number}.png"
        path.write_bytes(damage(path.read_bytes()))
    code, said, error = gdd("init", pets, *out)
    assert code == 2
    assert f"{pets / 'dog/4.png'} is not a readable image" in said
    assert f"{pets} has 1 images that cannot be used: replace them or remove them" in error
    (pets / "dog/4.png").unlink()
    code, said, error = gdd("init", pets, *out)
    assert f"{pets / 'dog/3.png'} is not a readable image" in said
    assert "has 1 images that cannot be used" in error
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--minutes", "0"], "--minutes is 0.0, expected a number above 0"),
        (["--minutes", "nan"], "minutes"),
    ],
)
def test_a_mistake_is_named(refused, pets, tmp_path, flags, sentence):
    refused("init", pets, "--out", tmp_path / "a.yaml", *flags, naming=sentence)


def test_a_path_that_is_not_there_is_named(refused):
    refused("init", "nowhere", naming="data.name is 'nowhere'")


@pytest.mark.parametrize(
    "flags", [[], ["--pretrain.steps", "9"], ["--data.size", "[16, 16]"], ["--method", "matching"]]
)
def test_digits_settings_on_own_images_are_pointed_out_once(flags, done, pets):
    output = done("train-gan", "--data.name", pets, "--dry-run", *flags)
    hint = f"warning: these are the settings for digits; gdd init '{pets}' writes others for yours"
    assert output.count(hint) == (not flags)


def test_digits_settings_on_digits_are_not(done):
    assert "warning" not in done("train-gan", "--dry-run")
