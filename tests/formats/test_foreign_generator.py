"""Generators of other programs: what they make of gdd's noise, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_files import COLOUR, refusal
from programs import NOISE, Broken, Flat, Levels, Loud, Narrow, Pairs, Random, Toy, TwoChannels, exported, scripted
from torch import nn

from gdd.data.pixels import pm1_to_u8
from gdd.formats import foreign_generator, plain
from gdd.sampling.curate import Generated, first_set
from gdd.sampling.sample import latents

CPU = torch.device("cpu")
PETS = replace(COLOUR, height=8, width=8)
WRITE = {"toy.pt": scripted, "toy.pt2": exported}


@pytest.mark.parametrize("name", WRITE)
def test_samples_are_its_answers_to_the_noise_of_class_and_number(name: str, tmp_path: Path) -> None:
    loaded = foreign_generator.load(WRITE[name](Toy(), tmp_path / name), NOISE, PETS, CPU, "toy")
    drawn = first_set(Generated(loaded, seed=3), 2)
    labels, indices = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1] * 3)
    level = 0.5 * labels - 0.5 + 0.1 * latents(3, labels, indices, NOISE)[:, 0].tanh()
    assert torch.equal(drawn.images, pm1_to_u8(level)[:, None, None, None].expand(-1, 3, 8, 8))
    assert torch.equal(drawn.labels, labels)
    assert drawn.spec == PETS
    told = {key: drawn.provenance[key] for key in ("method", "imported", "sample_seed")}
    assert told == {"method": "toy", "imported": name, "sample_seed": 3}
    assert drawn.provenance["generator"] == loaded.hash
    assert not plain.is_unnamed(drawn.provenance)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    loaded = foreign_generator.load(scripted(Toy(), tmp_path / "toy.pt"), NOISE, PETS, CPU)
    small, large = (first_set(Generated(loaded, seed=0), ipc).images.view(3, ipc, 3, 8, 8) for ipc in (3, 40))
    assert torch.equal(small, large[:, :3])
    assert len(large[0].flatten(1).unique(dim=0)) > 10  # the noise counts


def test_classes_without_a_dataset_are_numbers(tmp_path: Path) -> None:
    loaded = foreign_generator.load(scripted(Toy(), tmp_path / "toy.pt"), NOISE, ["0", "1", "2"], CPU)
    assert (loaded.spec.name, loaded.spec.class_names, loaded.spec.shape) == ("toy", ("0", "1", "2"), (3, 8, 8))
    found = plain.of_dataset(first_set(Generated(loaded, seed=0), 1), PETS)
    assert (found.spec, found.labels.tolist()) == (PETS, [0, 1, 2])


def test_a_network_that_was_saved_in_training_is_asked_in_eval_mode(tmp_path: Path) -> None:
    class Dropping(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, noise: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            return self.drop(0.1 * noise.tanh())[:, :3, None, None].expand(-1, 3, 8, 8)

    foreign_generator.load(scripted(Dropping().train(), tmp_path / "x.pt"), NOISE, PETS, CPU)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Loud(), "makes pixels from 0 to 4, expected -1 (black) to 1 (white)"),
        (Broken(), "makes pixels that are infinite or not a number"),
        (Levels(), "answers with torch.uint8, expected a tensor of floating-point numbers"),
        (Pairs(), "answers with tuple, expected a tensor of floating-point numbers"),
        (Flat(), "with shape (16, 3), expected (16, C, H, W) with 1 or 3 channels"),
        (TwoChannels(), "with shape (16, 2, 8, 8), expected (16, C, H, W) with 1 or 3 channels"),
        (Random(), "answers differently to the same noise, expected no random numbers of its own"),
        (Narrow(), "does not answer to noise (16, 5) float32 and classes (16,) int64 ("),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_makes_no_such_images_is_refused(network: nn.Module, sentence: str, tmp_path: Path) -> None:
    path = scripted(network, tmp_path / "x.pt")
    said = refusal(foreign_generator.load, path, NOISE, PETS, CPU)
    assert said.startswith(str(path))
    assert sentence in said


def test_pixels_may_leave_the_range_by_rounding_alone(tmp_path: Path) -> None:
    class Bright(Toy):
        def __init__(self, most: float) -> None:
            super().__init__()
            self.most = most

        def forward(self, noise: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            return noise.new_full((len(noise), 3, 8, 8), self.most)

    loaded = foreign_generator.load(scripted(Bright(1.0039), tmp_path / "x.pt"), NOISE, PETS, CPU)
    assert first_set(Generated(loaded, seed=0), 1).images.unique().tolist() == [255]
    said = refusal(foreign_generator.load, scripted(Bright(-1.004), tmp_path / "y.pt"), NOISE, PETS, CPU)
    assert "makes pixels from -1 to -1, expected" in said


def test_what_fits_no_dataset_or_is_no_program_is_refused(tmp_path: Path) -> None:
    path = scripted(Toy(), tmp_path / "toy.pt")
    said = refusal(foreign_generator.load, path, NOISE, COLOUR, CPU)
    assert said == f"{path} has images of shape (3, 8, 8), expected (3, 6, 4) of colour"
    fixed = exported(Toy(), tmp_path / "fixed.pt2", dynamic=False)
    assert "does not answer to noise (16, 5)" in refusal(foreign_generator.load, fixed, NOISE, PETS, CPU)
    for name, kind in (("x.pt", "TorchScript file"), ("x.pt2", "program of torch.export")):
        (tmp_path / name).write_bytes(b"no program")
        said = refusal(foreign_generator.load, tmp_path / name, NOISE, PETS, CPU)
        assert said.startswith(f"{tmp_path / name} is damaged or no {kind} (")
