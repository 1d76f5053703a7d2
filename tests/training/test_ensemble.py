"""The classifiers that judge samples: trained one after the other on the training part, each by half a cosine."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import CLASSES, DATASET, SPEC, configured, cross_entropy, run_stage, standardized_by_channel, states

from gdd import rng
from gdd.config import Config, EnsembleConfig
from gdd.data import augment
from gdd.models import registry
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble
from gdd.training import ensemble as ensemble_stage
from gdd.training.ensemble import train_judges

ARCHS = ("convnet3-bn-w4", "mlp-w8")


def config(**own: Any) -> Config:
    values = {"archs": ARCHS, "steps": 3, "batch_size": 8, "lr": 0.05, "augment": "color_crop", **own}
    return replace(configured(), ensemble=EnsembleConfig(**values))


def test_each_member_is_trained_by_its_own_batches_at_a_falling_rate(tmp_path: Path) -> None:
    last = run_stage(train_judges, config(), tmp_path)[-1]
    order = torch.cat([rng.Draws(3, rng.ENSEMBLE_BATCHES, epoch).permutation(24) for epoch in (0, 1)])
    for index, arch in enumerate(ARCHS):
        with rng.seeded(3, rng.INIT_ENSEMBLE, index):
            network = registry.build(arch, SPEC.shape, CLASSES).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4)
        for step in range(3):
            place = 3 * index + step
            images_u8, labels = DATASET.train.subset(order[8 * place : 8 * place + 8])
            random = rng.Draws(3, rng.ENSEMBLE_AUGMENT, place)
            change = augment.draw(("color", "crop"), 8, random, shared=False, pick="all")
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / 3)) / 2
            optimizer.zero_grad()
            cross_entropy(network(augment.apply(change, standardized_by_channel(images_u8 / 255))), labels).backward()
            optimizer.step()
        torch.testing.assert_close(last[f"member {index}"], dict(network.state_dict()), rtol=1e-3, atol=1e-5)


def test_the_file_has_the_members_and_what_they_know_of_the_validation_part(tmp_path: Path) -> None:
    last = run_stage(train_judges, config(), tmp_path)[-1]
    ensemble = ensemble_file.load(tmp_path)
    assert (ensemble.archs, ensemble.spec) == (ARCHS, SPEC)
    for index, member in enumerate(ensemble.members):
        for name, value in member.state_dict().items():
            torch.testing.assert_close(value, last[f"member {index}"][name], rtol=2**-11, atol=2**-25)  # of float16
    found = ensemble.provenance["validation_accuracy"]
    assert found.keys() == {"all", *ARCHS}
    right = ensemble.logits(DATASET.val.images_u8).argmax(1) == DATASET.val.labels
    assert found["all"] == pytest.approx(100 * right.float().mean().item(), abs=0.01)
    assert ensemble.provenance["data"] == DATASET.fingerprint


def test_members_that_diverge_know_nothing(tmp_path: Path) -> None:
    """Were nan a class, they would know the images of the first."""
    assert (DATASET.val.labels == 0).any()
    with torch.no_grad():
        member = registry.build("mlp-w8", SPEC.shape, CLASSES)
        next(iter(member.parameters())).fill_(math.nan)
    assert ensemble_stage._accuracy(Ensemble(["mlp-w8"], SPEC, [member]), DATASET.val, torch.device("cpu")) == 0


def test_it_goes_on_where_it_stopped_within_a_member_and_between(tmp_path: Path) -> None:
    whole = run_stage(train_judges, config(), tmp_path / "whole")[-1]
    for done in (2, 3, 4):
        resumed = tmp_path / str(done)
        resumed.mkdir()
        for name in ("config.json", f"checkpoint-{done:08d}.pt"):
            shutil.copy(tmp_path / "whole" / name, resumed / name)
        run_stage(train_judges, config(), resumed)
        again = states(resumed)[-1]
        for index in range(2):
            member = f"member {index}"
            assert all(torch.equal(value, whole[member][name]) for name, value in again[member].items())


def test_the_test_part_is_not_read_and_an_empty_validation_part_says_nothing(tmp_path: Path) -> None:
    empty = replace(DATASET, val=DATASET.val.subset(torch.arange(0)))
    run_stage(lambda settings, _, run: train_judges(settings, empty, run), config(), tmp_path)
    assert {*ensemble_file.load(tmp_path).provenance["validation_accuracy"].values()} == {None}
