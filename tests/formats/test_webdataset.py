"""Shards: their layout by hand, their bytes whoever makes them, and what other programs read in them."""

import hashlib
import io
import json
import logging
import resource
import subprocess

import numpy as np
import pytest
import torch
import webdataset as webdataset_library
from generators import PETS as SPEC
from generators import save_generator, save_teacher
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gdd
from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec
from gdd.formats import webdataset
from gdd.formats.webdataset import verify
from gdd.sampling import ensemble_file, generator_file, sample

GREY = DatasetSpec("signs", 1, 9, 8, ("a", "b"), (0.4,), (0.2,), False)


def digests(folder):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))]


def test_the_layout_of_seven_images_of_three_classes():
    plan = webdataset.ShardPlan("", 0, 7, 8, SPEC)
    assert (plan.total, plan.shards) == (21, 3)
    assert [list(plan.samples(shard)) for shard in range(3)] == [[*range(8)], [*range(8, 16)], [*range(16, 21)]]
    # By hand: sample 8 is image 2 of class 2, sample 9 image 3 of class 0.
    assert [plan.key(n) for n in (0, 1, 2, 3, 8, 9)] == [
        *("00000-00000000", "00001-00000000", "00002-00000000"),
        *("00000-00000001", "00002-00000002", "00000-00000003"),
    ]
    assert [list(plan.indices(1, label)) for label in range(3)] == [[3, 4, 5], [3, 4], [2, 3, 4]]


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 50))
def test_every_image_is_in_one_shard(classes, ipc, size):
    spec = DatasetSpec("any", 1, 8, 8, tuple(map(str, range(classes))), (0.5,), (0.5,), False)
    plan = webdataset.ShardPlan("", 0, ipc, size, spec)
    pairs = []
    for shard in range(plan.shards):
        samples = plan.samples(shard)
        assert len(samples) == size or shard == plan.shards - 1
        for label in range(classes):
            indices = plan.indices(shard, label)
            assert list(indices) == [n // classes for n in samples if n % classes == label]
            assert abs(len(indices) - len(samples) / classes) < 1  # balanced
            pairs += [(label, index) for index in indices]
    assert sorted(pairs) == [(label, index) for label in range(classes) for index in range(ipc)]


@pytest.mark.parametrize("size", [1, 512, 1234])
def test_a_member_is_what_gnu_tar_writes(size, tmp_path):
    content = bytes([7]) * size
    (tmp_path / "00001-00000002.png").write_bytes(content)
    flags = ["--format=ustar", "--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "--mode=0644"]
    subprocess.run(["tar", *flags, "-cf", "one.tar", "00001-00000002.png"], cwd=tmp_path, check=True)
    ours = webdataset.header("00001-00000002.png", size) + content + webdataset.padding(size)
    theirs = (tmp_path / "one.tar").read_bytes()
    assert len(ours) == {1: 1024, 512: 1024, 1234: 2048}[size]
    assert theirs.startswith(ours)
    assert not any(theirs[len(ours) :])


def read_with_webdataset(folder):
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    found = webdataset_library.WebDataset(urls, shardshuffle=False, empty_check=False).decode()
    return [(item["__key__"], np.asarray(Image.open(io.BytesIO(item["png"]))), item["cls"]) for item in found]


def read_with_tar(folder):
    listed = []
    for path in sorted(folder.glob("*.tar")):
        done = subprocess.run(["tar", "-xvf", path], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        listed += done.stdout.split()
    keys = [name.removesuffix(".png") for name in listed if name.endswith(".png")]
    return [
        (key, np.asarray(Image.open(folder / f"{key}.png")), int((folder / f"{key}.cls").read_text())) for key in keys
    ]


@pytest.mark.parametrize("read", [read_with_webdataset, read_with_tar])
@pytest.mark.parametrize(("spec", "ipc", "size"), [(SPEC, 20, 22), (GREY, 3, 1)], ids=["colour", "grey"])
def test_others_read_the_images_of_a_set(read, spec, ipc, size, draw, tmp_path):
    source = save_generator(tmp_path / "other", spec)
    folder = draw("out", ipc=ipc, size=size, source=source)
    verify(folder)
    found, classes = read(folder), spec.num_classes
    assert [(key, label) for key, _, label in found] == [
        (f"{n % classes:05d}-{n // classes:08d}", n % classes) for n in range(ipc * classes)
    ]
    expected = sample.sample_set(generator_file.load(source), ipc, 0).images.view(classes, ipc, *spec.shape)
    pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in found]))
    assert torch.equal(pixels.view(ipc, classes, spec.height, spec.width, -1).permute(1, 0, 4, 2, 3), expected)


def test_a_shard_depends_on_nothing_but_its_number(draw):
    whole = draw("whole")
    backwards = draw("backwards", "--shards", "2:3")
    draw("backwards", "--shards", "1:2")
    draw("backwards", "--shards", "0:1")
    assert digests(backwards) == digests(whole)
    assert (backwards / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_ipc_cuts_only_the_last_shard(draw):
    small = draw("small")
    large = draw("large", ipc=30)
    assert digests(small)[:2] == digests(large)[:2]
    cut, full = ((folder / "shard-000002.tar").read_bytes() for folder in (small, large))
    assert full.startswith(cut[:-1024])
    assert cut != full


def test_the_seed_changes_every_shard(draw):
    zero, one = digests(draw("zero")), digests(draw("one", "--seed", 1))
    assert not set(zero) & set(one)


def test_the_manifest_tells_sizes_checksums_and_origin(draw, source):
    folder = draw("out")
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = json.loads((folder / "settings.json").read_text())
    known = generator_file.load(source)
    facts = {"format": 1, "version": gdd.__version__, "generator": known.hash, "seed": 0, "ipc": 7, "shard_size": 8}
    assert settings == {**facts, "spec": json.loads(json.dumps(SPEC.to_dict()))}
    assert {key: manifest[key] for key in settings} == settings
    assert manifest["provenance"] == sample.sample_set(known, 1, 0).provenance
    paths = sorted(folder.glob("*.tar"))
    assert manifest["shards"] == [
        {"name": path.name, "samples": count, "bytes": path.stat().st_size, "sha256": digest}
        for path, count, digest in zip(paths, (8, 8, 5), digests(folder), strict=True)
    ]


def test_a_killed_job_goes_on_where_it_was(draw, caplog):
    folder = draw("out")
    before = digests(folder)
    kept = (folder / "shard-000000.tar").stat()
    (folder / "manifest.json").unlink()
    (folder / "shard-000001.tar").unlink()
    (folder / ".shard-000001.tar.99.tmp").write_bytes(b"half")
    with caplog.at_level(logging.INFO):
        draw("out")
    assert digests(folder) == before
    after = (folder / "shard-000000.tar").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert "3 of 3 shards, 21 images" in caplog.text
    assert "8 images made now" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "manifest.json", "settings.json"),
        *("shard-000000.tar", "shard-000001.tar", "shard-000002.tar"),
    ]


def test_a_damaged_shard_is_not_given_a_new_checksum(draw, refused):
    folder = draw("out")
    path = folder / "shard-000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])  # a pixel: only the checksum tells
    draw("out")
    assert "shard-000000.tar does not match the checksum" in refused("verify", folder)


def test_a_full_disk_leaves_no_half_shard(draw, refused, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # settings fit, shards do not
    try:
        line = draw("out", by=refused)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "shard-000000.tar cannot be written (File too large)" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("flags", "changed", "expected"),
    [
        (("--seed", 1), {}, "seed 0, now 1"),
        ((), {"ipc": 8}, "ipc 7, now 8"),
        ((), {"size": 9}, "shard_size 8, now 9"),
    ],
)
def test_a_folder_of_other_settings_is_refused(flags, changed, expected, draw, refused):
    folder = draw("out")
    before = digests(folder)
    line = draw("out", *flags, **changed, by=refused)
    assert f"({expected})" in line
    assert "out holds shards of other settings" in line
    assert digests(folder) == before


def test_a_folder_of_another_generator_dataset_or_version_is_refused(draw, tmp_path, refused):
    folder = draw("out")
    line = draw("out", source=save_generator(tmp_path / "second", SPEC, seed=1), by=refused)
    assert "generator" in line
    assert "spec" not in line
    settings = json.loads((folder / "settings.json").read_text())
    for key, value in (("version", "0.0.9"), ("spec", {**settings["spec"], "name": "zoo"}), ("more", 1)):
        (folder / "settings.json").write_text(json.dumps({**settings, key: value}))
        assert key in draw("out", by=refused)
    for text in ("{", "[]", "[" * 100_000):
        (folder / "settings.json").write_text(text)
        assert "settings.json" in draw("out", by=refused)


def test_a_folder_of_anything_else_is_refused(draw, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert "not empty and has no settings.json" in draw("out", by=refused)
    (tmp_path / "file").write_text("mine")
    assert "file cannot be written (File exists)" in draw("file", by=refused)


def test_settings_that_another_job_is_writing_are_no_obstacle(draw, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.settings.json.99.tmp").write_text("{")
    draw("out")


def test_the_manifest_comes_with_the_last_shard(draw, refused, done):
    folder = draw("out", "--shards", "0:1")
    assert not (folder / "manifest.json").exists()
    assert "sampling is not finished, 1 of 3 shards are there" in refused("verify", folder)
    draw("out", "--shards", "1:3")
    line = done("verify", folder)
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert f"{folder}: 3 shards, 21 images, 3 classes, {size} bytes" in line


@pytest.mark.parametrize("text", ["3:4", "0:4", "1:1", "2:1", "-1:2", "1", ":", "0:", "0:1:2", "a:b", "0:1e1", " 0:1"])
def test_a_range_of_shards_that_are_not_there_is_refused(text, draw, tmp_path, refused):
    line = draw("out", f"--shards={text}", by=refused)
    assert f"--shards is {text!r}, expected A:B with 0 <= A < B <= 3" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--shard-size", 9), "--shard-size is 9, expected none with --format safetensors"),
        (("--shards", "0:1"), "--shards is 0:1, expected none with --format safetensors"),
        (("--format", "webdataset", "--shard-size", 0), "--shard-size is 0"),
        (("--threads", 0), "--threads is 0"),
        (("--format", "tar"), "tar"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, expected, source, tmp_path, refused):
    line = refused("sample", source, "--ipc", 1, "--out", tmp_path / "out", *flags)
    assert expected in line
    assert not (tmp_path / "out").exists()


def test_names_have_room_for_every_sample_and_shard(draw, tmp_path, refused):
    assert "ipc is 100000001, expected a whole number from 1 to 100000000" in draw("out", ipc=10**8 + 1, by=refused)
    # 9 000 000 samples make at most a million shards, of 9.
    assert "shard_size is 8, expected a whole number from 9" in draw("out", ipc=3 * 10**6, by=refused)
    last = webdataset.ShardPlan("", 0, 10**8, 300, SPEC)
    assert last.key(last.total - 1) == "00002-99999999"
    assert webdataset.shard_path(tmp_path, last.shards - 1).name == "shard-999999.tar"


@pytest.mark.parametrize(("seed", "ipc", "shard_size"), [(0, 1.5, 8), (True, 1, 8), (0, 1, "8"), (-1, 1, 8), (0, 0, 8)])
def test_a_stored_plan_of_the_wrong_types_is_refused(seed, ipc, shard_size, tmp_path):
    plan = webdataset.ShardPlan("", 0, 1, 8, SPEC).to_dict() | {"seed": seed, "ipc": ipc, "shard_size": shard_size}
    (tmp_path / "settings.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=r"settings\.json: (seed|ipc|shard_size) is .*, expected a whole number"):
        webdataset.read_plan(tmp_path / "settings.json")


def test_a_sample_is_always_computed_in_the_same_batch(source):
    loaded, seen = generator_file.load(source), []
    loaded.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    sample.sample_images(loaded, 1, 20, 23, 0, "cpu")
    chunk = sample.latents(0, torch.full((16,), 1), torch.arange(16, 32), 6)
    assert torch.equal(torch.cat(seen), chunk)


def test_a_teachers_answers_lie_beside_the_images(draw, source, tmp_path):
    """They are those to the images of the PNG files, whatever the size of the shards."""
    teacher = ensemble_file.load(save_teacher(source.parent))
    folder = draw("soft", "--soft-labels")
    samples = [
        sample
        for path in sorted(folder.glob("*.tar"))
        for sample in webdataset_library.WebDataset(str(path), shardshuffle=False).decode("rgb8")
    ]
    assert len(samples) == 21
    images = torch.from_numpy(np.stack([sample["png"] for sample in samples])).permute(0, 3, 1, 2)
    answers = np.stack([sample["logits.npy"] for sample in samples])
    assert (answers.dtype, answers.shape) == (np.float16, (21, 3))
    np.testing.assert_allclose(answers, teacher.logits(images), rtol=2e-3, atol=1e-3)
    together = draw("one", "--soft-labels", size=21)
    (path,) = together.glob("*.tar")
    whole = webdataset_library.WebDataset(str(path), shardshuffle=False).decode("rgb8")
    assert all(np.array_equal(one["logits.npy"], other) for one, other in zip(whole, answers, strict=True))
    verify(folder)
    assert "It has soft labels" in (folder / "README.md").read_text()
    assert json.loads((folder / webdataset.MANIFEST).read_text())["provenance"]["seconds"] == 1.5 + 2.0


def test_shards_of_another_teacher_or_of_none_are_others(draw, refused, source):
    draw("plain")
    save_teacher(source.parent)
    draw("soft", "--soft-labels")
    for folder, flags in (("plain", ["--soft-labels"]), ("soft", [])):
        assert "holds shards of other settings (teacher" in draw(folder, *flags, by=refused)
    save_teacher(source.parent, seed=1)
    assert "holds shards of other settings (teacher" in draw("soft", "--soft-labels", by=refused)


def test_a_teacher_of_other_classes_claims_no_folder(draw, refused, source, tmp_path):
    save_teacher(source.parent, GREY)
    assert "the ensemble has the classes a, b, expected those of pets" in draw("soft", "--soft-labels", by=refused)
    assert not (tmp_path / "soft").exists()
    save_teacher(source.parent)
    draw("soft", "--soft-labels")
