"""timm's networks by name: they are timm's, with weights only where the name has them, and rows tell it."""

from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from generators import PETS
from safetensors.torch import save_file
from torch import nn

from gdd.config import ConfigError
from gdd.models import from_timm
from gdd.models.cost import classifier_flop
from gdd.models.layers import Classifier
from gdd.models.registry import build, is_pretrained, parse, pretrained_among
from gdd.rng import seeded
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble

SHAPE = (3, 32, 32)
PRETRAINED = "timm:test_resnet.r160_in1k"


def network(name: str, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Classifier:
    with seeded(seed, "test"):
        return build(name, shape, 7)


def offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm's cache be a folder, and the network be away."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    from_timm._with_weights.cache_clear()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights in the cache, as timm would have fetched them."""
    offline(tmp_path, monkeypatch)
    with seeded(0, "weights"):
        state = timm.create_model("test_resnet").state_dict()
    place, revision = tmp_path / "models--timm--test_resnet.r160_in1k", 40 * "0"
    for folder in ("refs", f"snapshots/{revision}"):
        (place / folder).mkdir(parents=True)
    (place / "refs/main").write_text(revision)
    save_file(state, place / "snapshots" / revision / "model.safetensors")
    return state


@pytest.mark.parametrize(
    ("name", "shape"), [("test_resnet", (1, 32, 32)), ("test_vit", (3, 32, 48)), ("test_efficientnet", (3, 24, 24))]
)
def test_features_are_timms_own_and_the_head_is_new(name, shape):
    ours = network(f"timm:{name}", shape).eval()
    images = torch.randn(2, *shape)
    size = {"img_size": shape[1:]} if name == "test_vit" else {}
    theirs = timm.create_model(name, in_chans=shape[0], num_classes=0, **size).eval()
    theirs.load_state_dict(ours.features[0].state_dict())
    torch.testing.assert_close(ours.embed(images), theirs(images))
    torch.testing.assert_close(ours(images), ours.head(theirs(images)))
    ours.train()(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def test_its_first_weights_depend_on_the_seed_alone():
    one, same, other = (network("timm:test_resnet", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["features.0.conv1.0.weight"], other["features.0.conv1.0.weight"])


def test_nothing_is_dropped_at_random():
    """It has a dropout by default, which would draw from PyTorch's global generator."""
    rexnet, images = network("timm:rexnet_100").train(), torch.randn(2, *SHAPE)
    assert torch.equal(rexnet(images), rexnet(images))
    assert any(layer.p > 0 for layer in timm.create_model("rexnet_100").modules() if isinstance(layer, nn.Dropout))


def test_it_has_a_second_derivative():
    vit, images = network("timm:test_vit"), torch.randn(2, *SHAPE, requires_grad=True)
    (gradient,) = torch.autograd.grad(vit(images).square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_its_cost_is_that_of_its_products():
    """A vision transformer of timm costs what gdd's of the same sizes does, whose patches are smaller."""
    counted = classifier_flop("timm:test_vit", SHAPE, 7)
    vit = timm.create_model("test_vit", img_size=32, num_classes=0)
    tokens, width = (32 // 16) ** 2, vit.embed_dim
    of_blocks = sum(
        2 * layer.weight.numel() * (tokens + vit.num_prefix_tokens)
        for layer in vit.blocks.modules()
        if isinstance(layer, nn.Linear)
    )
    assert counted == of_blocks + 2 * tokens * width * 3 * 16**2 + 2 * width * 7


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("timm:resnet81", SHAPE, "timm has no network 'resnet81'; did you mean 'resnet18'"),
        ("timm:test_vit2.zzz", SHAPE, "timm has no weights 'test_vit2.zzz', expected one of test_vit2.r160_in1k"),
        ("timm:test_vit4.zzz", SHAPE, "timm has no weights 'test_vit4.zzz', expected one of none"),
        ("timm:test_vit", (1, 30, 32), "timm's test_vit cannot work on images of 30x32 pixels and 1 channels .Input"),
    ],
)
def test_what_timm_cannot_build_is_refused(name, shape, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(name, shape, 7)


@pytest.mark.parametrize("name", ["timm:", "timm:hf-hub:a/b", "timm:local-dir:x", "timm:../x", "timm:a.b.c", "timm:A"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ConfigError, match=r"expected timm:NAME or timm:NAME\.WEIGHTS"):
        parse(name)


@pytest.mark.parametrize("name", ["timm:test_resnet", PRETRAINED])
def test_its_name_is_that_of_its_rows(name):
    assert parse(name).name == name
    assert is_pretrained(name) == (name == PRETRAINED)


def test_what_has_learned_elsewhere_is_found_among_settings():
    settings = {"a": ["mlp", PRETRAINED, "timm:test_vit"], "b": {"c": (PRETRAINED, 3, None)}, "d": "resnet18.x"}
    assert pretrained_among(settings) == (PRETRAINED,)


def test_weights_are_those_of_timms_cache(weights):
    one, other = (network(PRETRAINED, seed=seed) for seed in (0, 1))
    for student in (one, other):
        for key, value in student.features[0].state_dict().items():
            assert torch.equal(value, weights[key]), key
    assert not torch.equal(one.head.weight, other.head.weight)
    assert one.features[0].conv1[0].weight.data_ptr() != other.features[0].conv1[0].weight.data_ptr()
    again = network(PRETRAINED, seed=0)
    assert torch.equal(one.head.weight, again.head.weight)  # though its weights were there already


def test_weights_for_colour_are_summed_up_for_grey(weights):
    grey = network(PRETRAINED, (1, 32, 32)).features[0].conv1[0].weight
    torch.testing.assert_close(grey, weights["conv1.0.weight"].sum(1, keepdim=True))


def test_weights_that_cannot_be_had_are_told_in_a_sentence(tmp_path, monkeypatch):
    offline(tmp_path, monkeypatch)
    with pytest.raises(
        ConfigError, match=r"the weights of timm's test_resnet\.r160_in1k are not in its cache and cannot"
    ):
        build(PRETRAINED, SHAPE, 7)
    with torch.device("meta"):
        build(PRETRAINED, SHAPE, 7)  # asks for none


def test_an_ensemble_of_it_needs_nothing_but_its_own_file(weights, tmp_path, monkeypatch):
    members = [build(PRETRAINED, PETS.shape, PETS.num_classes)]
    images = torch.randint(256, (3, *PETS.shape), dtype=torch.uint8)
    ensemble = Ensemble([PRETRAINED], PETS, members)
    file = ensemble_file.save(tmp_path, ensemble, {})
    offline(tmp_path / "nothing", monkeypatch)
    loaded = ensemble_file.load(file)
    assert loaded.archs == (PRETRAINED,)
    torch.testing.assert_close(loaded.logits(images), ensemble.logits(images), rtol=0.01, atol=0.01)  # float16


def test_a_file_cannot_have_more_layers_built_than_it_holds(tmp_path):
    small = Ensemble(["mlp-w8"], PETS, [build("mlp-w8", PETS.shape, PETS.num_classes)])
    small.archs = ("timm:test_resnet",)
    with pytest.raises(ConfigError, match="its member timm:test_resnet is larger than the file"):
        ensemble_file.load(ensemble_file.save(tmp_path, small, {}))
