"""Every place where gdd reads another project's .pt file: no code of its runs, and it cannot fill the memory."""

import pickle
from pathlib import Path

import guarded
import pickles
import pytest
import torch

from gdd.formats import dc_mtt

PLACES = ("dc", "images", "labels", "lr")


def refused(place: str, content: bytes, folder: Path) -> str:
    """Put a file where the command reads it, and return the sentence of its refusal."""
    files = {name: folder / f"{name}.pt" for name in PLACES}
    torch.save(torch.zeros(10, 1, 16, 16), files["images"])
    torch.save(torch.arange(10), files["labels"])
    torch.save(torch.tensor(0.1), files["lr"])
    files[place].write_bytes(content)
    if place == "dc":
        given = [files["dc"], "--format", "dc"]
    else:
        given = [files["images"], "--format", "mtt", "--labels", files["labels"], "--lr", files["lr"]]
    out = folder / "out.safetensors"
    sentence = guarded.refused("import", *given, "--dataset", "digits", "--out", out, naming=files[place])
    assert not out.exists()
    return sentence


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", [pickles.with_code, pickles.with_code_legacy], ids=["zip", "legacy"])
def test_code_is_refused_and_does_not_run(place, write, tmp_path):
    mark = tmp_path / "mark"
    sentence = refused(place, write(mark), tmp_path)
    assert sentence.endswith(f"{place}.pt would run code of its own choice (posix.mkdir) when read; refused")
    assert not mark.exists()
    pickle.loads(pickle.dumps(pickles.Touch(mark)))
    assert mark.exists()


@pytest.mark.parametrize("place", ["dc", "labels"])
@pytest.mark.parametrize("bomb", pickles.BOMBS)
def test_a_bomb_is_refused_without_taking_memory(place, bomb, tmp_path):
    refused(place, pickles.BOMBS[bomb](), tmp_path)


def test_keys_that_print_as_gigabytes_are_not_printed(tmp_path):
    key: tuple[object, ...] = ("x",)
    for _ in range(25):
        key = (key,)
    path = tmp_path / "x.pt"
    torch.save({key: 1, "k" * 10**5: 2, 3: 4}, path)
    with pytest.raises(dc_mtt.ConfigError, match=r"holds a dict of k{40}, expected"):
        dc_mtt.read_dc(path, None)
