"""Generators and sets whose safetensors header lies: about the file, about itself, or about what gdd stores."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import guarded
import pytest
import torch
from safetensors.torch import save_file

from gdd.data.spec import DatasetSpec
from gdd.models import registry
from gdd.models.gan import DimGenerator
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.sampling.ensemble_file import Ensemble

SPEC = DatasetSpec("pets", 1, 16, 16, ("cat", "dog"), (0.5,), (0.5,), False)
DEEP = "[" * 100_000 + "]" * 100_000


def raw(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(begin: int, end: int, shape: tuple[int, ...] = (4,), dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


META = {"__metadata__": {"gdd": json.dumps({"kind": "set"})}}
ONE = json.dumps(entry(0, 4))
BROKEN = {
    "empty": b"",
    "four bytes": b"\1\0\0\0",
    "length 0": raw({"x": entry(0, 4), **META}, b"1234", length=0),
    "length beyond the file": raw({}, length=10**6),
    "huge length": raw({}, length=2**63),
    "greatest length": raw({}, length=2**64 - 1),
    "offsets beyond": raw({"x": entry(0, 4), **META}, b"12"),
    "offsets of exabytes": raw({"x": entry(0, 2**62, (2**62,)), **META}, b"12"),
    "overlapping": raw({"x": entry(0, 4), "y": entry(2, 6), **META}, b"123456"),
    "backwards": raw({"x": entry(4, 0), **META}, b"1234"),
    "negative": raw({"x": entry(-4, 0), **META}, b"1234"),
    "bytes left over": raw({"x": entry(0, 4), **META}, b"12345678"),
    "shape of more": raw({"x": entry(0, 4, (5,)), **META}, b"1234"),
    "shape that overflows": raw({"x": entry(0, 4, (2**33, 2**33)), **META}, b"1234"),
    "another type": raw({"x": entry(0, 4, (4,), "F64"), **META}, b"1234"),
    "unknown type": raw({"x": entry(0, 4, (4,), "F9"), **META}, b"1234"),
    "one name twice": raw(f'{{"x": {ONE}, "x": {ONE}}}'.encode(), b"1234"),
    "no UTF-8": raw(b'{"\xff": 1}'),
    "no mapping": raw([1, 2]),
    "nested": raw(DEEP.encode()),
    "metadata of lists": raw({"__metadata__": {"gdd": [1]}}),
    "metadata without gdd": raw({"__metadata__": {"other": "1"}}),
    "no metadata": raw({"x": entry(0, 4)}, b"1234"),
    "gdd is no JSON": raw({"__metadata__": {"gdd": "{"}}),
    "gdd is a list": raw({"__metadata__": {"gdd": "[1]"}}),
    "gdd is nested": raw({"__metadata__": {"gdd": DEEP}}),
    "gdd has a long number": raw({"__metadata__": {"gdd": "9" * 5000}}),
    "millions of names": raw({"__metadata__": {"gdd": json.dumps({"kind": "set", "spec": ["{}"] * 4_000_000})}}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(BROKEN[case])
    guarded.refused("preview", path, "--out", tmp_path / "x.png", naming=path)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a generator, an ensemble and a set that nobody has touched."""
    folder = tmp_path_factory.mktemp("honest")
    generator_file.save(folder, DimGenerator(SPEC.shape, 2, 4, 8), SPEC, {"method": "gan"})
    member = registry.build("convnet3-w4", SPEC.shape, 2)
    ensemble_file.save(folder, Ensemble(["convnet3-w4"], SPEC, [member]), {"data": "d"})
    images = torch.arange(2 * 256, dtype=torch.int32).to(torch.uint8).view(2, 1, 16, 16)
    set_file.save(folder / set_file.FILE, set_file.SyntheticSet(images, torch.arange(2), SPEC, 1, {"method": "made"}))
    return folder


def retold(path: Path, to: Path, key: str, value: object) -> Path:
    """Copy a file with one value of gdd's metadata changed, or removed if it is `...`."""
    tensors, metadata = generator_file.checkpoint.load_tensors(path)
    *parts, last = key.split(".")
    part: dict[str, Any] = metadata
    for name in parts:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    save_file(tensors, to, metadata={"gdd": json.dumps(metadata)})
    return to


NUMBERS = (10**6, 10**9, 2**63, 10**30, 0, -4, True, "4", 4.0, None, [4], math.nan, ...)
SPECS = {
    "spec": ([], "spec", None, {}, 3, ...),
    "spec.height": (10**6, 10**12, 0, -1, "16", 16.0, True, None, ...),
    "spec.width": (10**6, 2**63),
    "spec.channels": (2, 0, -1, 10**9, "1", [1], ...),
    "spec.class_names": (
        *([], ["cat"], ["cat", "cat"], "cd", [1, 2], {"cat": 1, "dog": 2}),
        *(["c" * 10**6, "d"], list(map(str, range(10**5))), ...),
    ),
    "spec.mean": ([], [0.5, 0.5], ["0.5"], [math.nan], [math.inf], None, 0.5, ...),
    "spec.std": ([0.0], [-1.0], [], [math.nan], ...),
    "spec.flip": (1, "no", None, ...),
    "spec.name": (3, None, ...),
    "provenance": ([], "x", None, 3, {"seed": "0"}, ...),
    "hash": ("0" * 16, 3, None, [], ...),
    "kind": ("video", 3, None, ["generator"], ...),
}
GENERATOR = {
    "build": (None, [], [4, 8], {"width": 4}, {"noise_dim": 8}, 4, ...),
    "build.width": NUMBERS,
    "build.noise_dim": NUMBERS,
    **SPECS,
}
ENSEMBLE = {
    "archs": (
        *([], None, "convnet3-w4", 3, [3], ["convnet3"], ["mlp-w4"], ["convnet3-w4"] * 2, ["convnet3-w4"] * 10**5, ...),
        *([f"convnet3-w{10**30}"], [f"convnet3-w{2**63}"], [f"mlp-w{2**20}"], ["convnet3-w4x"], ["convnet-d0"]),
        *([f"convnet-w4-d{10**7}-nopool"], [f"convnet-w4-d{'9' * 5000}"], ["resnet50-w1048576"] * 16),
    ),
    **SPECS,
}
SET = {"ipc": (2, 10**9, 0, -1, True, "1", 1.0, None, [1], ...), **SPECS}


@pytest.mark.parametrize("key", GENERATOR)
def test_a_generator_that_lies_is_refused(key, honest, tmp_path):
    for value in GENERATOR[key]:
        path = retold(honest / generator_file.FILE, tmp_path / generator_file.FILE, key, value)
        guarded.refused("sample", tmp_path, "--ipc", "1", "--out", tmp_path / "y.safetensors", naming=path)


@pytest.mark.parametrize("key", ENSEMBLE)
def test_an_ensemble_that_lies_is_refused(key, honest, tmp_path):
    command = ("sample", honest, "--ipc", "1", "--out", tmp_path / "y.safetensors", "--soft-labels", "--ensemble")
    for value in ENSEMBLE[key]:
        path = retold(honest / ensemble_file.FILE, tmp_path / ensemble_file.FILE, key, value)
        guarded.refused(*command, tmp_path, naming=path)


@pytest.mark.parametrize("key", SET)
def test_a_set_that_lies_is_refused(key, honest, refused, tmp_path):
    for value in SET[key]:  # nothing is built from it, so that no process needs to be guarded
        path = retold(honest / set_file.FILE, tmp_path / set_file.FILE, key, value)
        said = refused("export", path, "--to", "npz", "--out", tmp_path / "y.npz")
        assert said.startswith(f"gdd: {path}")


@pytest.mark.parametrize(("name", "value"), [("unknown", torch.zeros(1)), ("render.0.bias", torch.zeros(4).double())])
def test_other_weights_than_the_header_describes_are_refused(name, value, honest, tmp_path):
    tensors, metadata = generator_file.checkpoint.load_tensors(honest / generator_file.FILE)
    tensors[name] = value
    metadata["hash"] = generator_file.tensor_hash(tensors)
    save_file(tensors, tmp_path / generator_file.FILE, metadata={"gdd": json.dumps(metadata)})
    guarded.refused("sample", tmp_path, "--ipc", "1", "--out", tmp_path / "y.safetensors", naming=generator_file.FILE)


def test_the_honest_files_are_read(honest, tmp_path):
    assert guarded.run("sample", honest, "--ipc", "1", "--out", tmp_path / "y.safetensors").code == 0
    command = ("sample", honest, "--ipc", "1", "--out", tmp_path / "z.safetensors", "--soft-labels", "--ensemble")
    assert guarded.run(*command, honest).code == 0
    assert guarded.run("export", honest / set_file.FILE, "--to", "npz", "--out", tmp_path / "y.npz").code == 0


@pytest.mark.parametrize("key", ["config", "seconds"])
@pytest.mark.parametrize("value", [None, [], "x", {"gan": 3}, {"gan": {}}, ...])
def test_a_stage_1_with_odd_provenance_is_refused(key, value, pretrained, refused, tiny):
    retold(pretrained / generator_file.FILE, pretrained / generator_file.FILE, f"provenance.{key}", value)
    flags = ["--name", "other", "--refine.pretrained", pretrained, "--refine.steps", "1"]
    refused("distill", *tiny, *flags, naming=pretrained)
