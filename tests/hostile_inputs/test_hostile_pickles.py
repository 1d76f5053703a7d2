"""Every place where gdd reads a .pt file: no code of its runs, and it cannot fill the memory."""

import pickle
from pathlib import Path

import guarded
import pickles
import pytest
import torch

from gdd.formats import dc_mtt

MTT = ("images", "labels", "lr")
PLACES = ("dc", *MTT, "resume", "pretrained")


def refused(place: str, content: bytes, flags: list[str], runs: Path) -> str:
    """Put a file where the command reads it, and return the sentence of its refusal."""
    if place in ("resume", "pretrained"):
        folder = runs / "digits" / "pretrain"
        (path,) = folder.glob("checkpoint-*.pt")
        path.write_bytes(content)
        if place == "pretrained":
            return guarded.refused(
                "distill", *flags, "--name", "other", "--refine.pretrained", folder, naming=path.name
            )
        (folder / "generator.safetensors").unlink()
        return guarded.refused("train-gan", *flags, naming=path.name)
    files = {name: runs / f"{name}.pt" for name in ("dc", *MTT)}
    torch.save(torch.zeros(10, 1, 16, 16), files["images"])
    torch.save(torch.arange(10), files["labels"])
    torch.save(torch.tensor(0.1), files["lr"])
    files[place].write_bytes(content)
    given = ["dc", files["dc"]] if place == "dc" else ["mtt", files["images"]]
    more = [] if place == "dc" else ["--labels", files["labels"], "--lr", files["lr"]]
    whole = ["--dataset", "digits", "--out", runs / "out.safetensors", *more]
    sentence = guarded.refused("import", given[1], "--format", given[0], *whole, naming=files[place])
    assert not (runs / "out.safetensors").exists()
    return sentence


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", [pickles.with_code, pickles.with_code_legacy], ids=["zip", "legacy"])
def test_code_is_refused_and_does_not_run(place, write, flags, runs):
    mark = runs / "mark"
    refused(place, write(mark), flags, runs)
    assert not mark.exists()
    pickle.loads(pickle.dumps(pickles.Touch(mark)))
    assert mark.exists()


@pytest.mark.parametrize("place", ["dc", "labels", "pretrained"])
@pytest.mark.parametrize("bomb", pickles.BOMBS)
def test_a_bomb_is_refused_without_taking_memory(place, bomb, flags, runs):
    refused(place, pickles.BOMBS[bomb](), flags, runs)


def test_a_tensor_of_a_checkpoint_that_claims_more_than_the_file_holds(flags, runs):
    (path,) = (runs / "digits" / "pretrain").glob("checkpoint-*.pt")
    content = torch.load(path, weights_only=True)
    generator = content["states"]["generator"]
    generator[next(iter(generator))] = torch.zeros(1, dtype=torch.float16).expand(10**6, 10**5)
    torch.save(content, path)
    refused("resume", path.read_bytes(), flags, runs)


def test_keys_that_print_as_gigabytes_are_not_printed(tmp_path):
    key: tuple[object, ...] = ("x",)
    for _ in range(25):
        key = (key,)
    path = tmp_path / "x.pt"
    torch.save({key: 1, "k" * 10**5: 2, 3: 4}, path)
    with pytest.raises(dc_mtt.ConfigError, match=r"holds a dict of k{40}, expected"):
        dc_mtt.read_dc(path, None)
