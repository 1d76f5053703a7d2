"""One step of either stage written out from its equations, compared with what a run left in its checkpoints.

Nothing here calls the losses, the pixel conversions, the trainer or Adam. The draws of a step, which only the code
defines, come from the same streams in the same order; `augment` is tested by itself.
"""

import json
import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, GanConfig, PretrainConfig, RefineConfig, RefinePoolConfig, RunConfig
from gdd.data import augment
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, parse_strategy
from gdd.data.splits import Split
from gdd.models import registry
from gdd.models.gan import DimDiscriminator, DimGenerator
from gdd.runtime import checkpoint
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run

SPEC = DatasetSpec("toy", 3, 16, 16, ("a", "b", "c"), (0.2, 0.5, 0.7), (0.3, 0.25, 0.2), flip=True)
CLASSES, BATCH = SPEC.num_classes, 6
ADAM_EPS = 1e-8

State = dict[str, Any]  # of a checkpoint: each object's state by its name


def _unread() -> Split:
    raise AssertionError("training read the test part")


def _split(count: int, seed: int) -> Split:
    """Noise around one colour per class."""
    draw, labels = torch.Generator().manual_seed(seed), torch.arange(count) % CLASSES
    images = 60 * labels.view(-1, 1, 1, 1) + torch.randint(120, (count, *SPEC.shape), generator=draw)
    return Split(images.to(torch.uint8), labels)


DATASET = Dataset(SPEC, _split(24, seed=0), _split(6, seed=1), _unread)


def configured(
    gan: dict[str, Any] | None = None,
    pretrain: dict[str, Any] | None = None,
    refine: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
) -> Config:
    """Small networks, and no setting at a value that would hide whether it is used."""
    gan = {"beta1": 0.2, "beta2": 0.9, "ema_decays": (0.8,), "aux_weight": 0.7, "gradient_penalty": 5.0, **(gan or {})}
    pool = {"members": ("convnet3-bn-w4",), "steps_before": 2, "steps_between": 1, "batch_size": 8, **(pool or {})}
    refine = {"steps": 2, "batch_size": BATCH, "lr": 1e-3, "schedule": "cosine", "weight": 5.0, **(refine or {})}
    return Config(
        seed=3,
        gan=GanConfig(arch="dim", width=4, noise_dim=8, r1=0.3, r1_every=2, **gan),
        pretrain=PretrainConfig(
            **{"steps": 2, "batch_size": BATCH, "lr": 2e-3, "schedule": "cosine", **(pretrain or {})}
        ),
        refine=RefineConfig(**refine, pool=RefinePoolConfig(**pool)),
        run=RunConfig(save_every=1, keep=9, log_every=1, threads=1),
    )


def run_stage(stage: Callable[..., Path], config: Config, folder: Path, *rest: Path) -> list[State]:
    """Run a stage in a folder of its own and return the state after each step."""
    with Run(folder, config.run, {}, "test", make_accelerator(config.run)) as run:
        stage(config, DATASET, run, *rest)
    return states(folder)


def states(folder: Path) -> list[State]:
    paths = [checkpoint.path_at(folder, step) for step in checkpoint.steps(folder)]
    return [torch.load(path, weights_only=True)["states"] for path in paths]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def initial_state(config: Config) -> State:
    with rng.seeded(config.seed, rng.INIT_GAN):
        generator = DimGenerator(SPEC.shape, CLASSES, config.gan.width, config.gan.noise_dim)
        discriminator = DimDiscriminator(SPEC.shape, CLASSES, config.gan.width)
    average = {f"module.{name}": value for name, value in generator.state_dict().items()}
    return {
        "generator": generator.state_dict(),
        "discriminator": discriminator.state_dict(),
        "average": {**average, "n_averaged": torch.tensor(0)},
        "opt_g": {"state": {}},
        "opt_d": {"state": {}},
    }


def real_batch(config: Config, stage: str, step: int) -> tuple[Tensor, Tensor]:
    """Return the images (B, C, H, W) uint8 and labels (B,) of a step of the first epoch."""
    order = rng.Draws(config.seed, stage, 0).permutation(len(DATASET.train.labels))
    return DATASET.train.subset(order[step * BATCH : (step + 1) * BATCH])


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.exp().sum(1).log() - logits[torch.arange(len(labels)), labels]).mean()


def nearest_pairs(real: Tensor, fake: Tensor, labels: Tensor) -> list[int]:
    """Return the order of the real rows, within their classes, that is nearest to the fake ones: by trying all."""

    def z(logits: Tensor) -> Tensor:
        return (logits - logits.mean(1, keepdim=True)) / logits.std(1, unbiased=False, keepdim=True)

    order = list(range(len(labels)))
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten().tolist()
        best = min(permutations(rows), key=lambda columns: (z(real)[list(columns)] - z(fake)[rows]).square().sum())
        for row, column in zip(rows, best, strict=True):
            order[row] = column
    return order


def standardized_by_channel(images_unit: Tensor) -> Tensor:
    """Return [0, 1] images in classifier space."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    return (images_unit - mean) / std


class StageReference:
    """What one step of a stage must do to the state before it.

    Args:
        config: of the run.
        stage: pretrain or refine.
        lr: first one of both Adam optimisers, which falls by half a cosine.
    """

    def __init__(self, config: Config, stage: str, lr: float) -> None:
        self.config, self.stage, self.lr = config, stage, lr

    def check(self, step: int, before: State, after: State, logged: dict[str, float]) -> None:
        """Assert that step `step` led from `before` to `after`, and logged its losses."""
        gan, settings = self.config.gan, self.config.refine
        steps = (self.config.pretrain if self.stage == "pretrain" else settings).steps
        self.rate = self.lr * (1 + math.cos(math.pi * step / steps)) / 2
        images_u8, labels = real_batch(self.config, self.stage, step)
        generator = DimGenerator(SPEC.shape, CLASSES, gan.width, gan.noise_dim)
        discriminator = DimDiscriminator(SPEC.shape, CLASSES, gan.width)
        generator.load_state_dict(before["generator"])
        discriminator.load_state_dict(before["discriminator"])

        # L = L_GAN + lambda L_matching, for generated images of the real batch's classes.
        fake = generator(self._noise(self._random("noise-g", step)), labels)
        adversarial = self._generator_loss(*discriminator(self._seen(fake, "augment-g", step)), labels)
        losses = {"loss/generator": adversarial}
        objective = adversarial
        if self.stage == "refine":
            losses[f"loss/{settings.loss}"] = self._matching_loss(step, images_u8, labels, fake, after["pool"])
            objective = adversarial + settings.weight * losses[f"loss/{settings.loss}"]
        self._check_adam("generator", "opt_g", generator, objective, before, after)

        # The average follows the generator after its step; weights that just agreed but for rounding are taken over.
        weights = {name: after["generator"][name] for name, _ in generator.named_parameters()}
        generator.load_state_dict({**generator.state_dict(), **weights})
        decay = gan.ema_decays[0] if before["average"]["n_averaged"] > 0 else 0.0
        for name, value in generator.state_dict().items():
            if value.is_floating_point():
                expected = decay * before["average"][f"module.{name}"] + (1 - decay) * value
                torch.testing.assert_close(after["average"][f"module.{name}"], expected, rtol=1e-4, atol=1e-5)

        # The discriminator sees the generator after its step.
        if self.stage == "refine" and settings.discriminator == "frozen":
            assert_same(after["discriminator"], before["discriminator"])
            assert_same(after["opt_d"]["state"], before["opt_d"]["state"])
        else:
            random = self._random("noise-d", step)
            noise = self._noise(random)
            fake_labels = random.integers(CLASSES, BATCH)
            mixing = random.uniform(BATCH, 1, 1, 1)
            fake = generator(noise, fake_labels).detach()
            both = self._seen(torch.cat([images_u8 / 127.5 - 1, fake]), "augment-d", step)
            real, fake = both[:BATCH], both[BATCH:]
            loss = self._discriminator_loss(discriminator, real, labels, fake, fake_labels)
            penalty = self._penalty(step, discriminator, real, fake, mixing, labels)
            losses |= {"loss/discriminator": loss} | ({} if penalty is None else {"loss/penalty": penalty})
            objective = loss if penalty is None else loss + penalty
            self._check_adam("discriminator", "opt_d", discriminator, objective, before, after)
        for name, value in generator.named_buffers():
            torch.testing.assert_close(after["generator"][name], value, rtol=1e-4, atol=1e-5)

        losses = {name: loss.item() for name, loss in losses.items()}
        assert {name for name in logged if name.startswith("loss/")} == losses.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(logged[name], loss, rtol=1e-3, atol=1e-5)

    def _random(self, draw: str, step: int) -> rng.Draws:
        return rng.Draws(self.config.seed, f"{self.stage}-{draw}", step)

    def _noise(self, random: rng.Draws) -> Tensor:
        return random.normal(BATCH, self.config.gan.noise_dim)

    def _seen(self, images: Tensor, draw: str, step: int) -> Tensor:
        """Return what the discriminator sees, each image augmented by itself."""
        operations = parse_strategy(self.config.gan.augment, SPEC.flip)
        drawn = augment.draw(operations, len(images), self._random(draw, step), shared=False, pick="all")
        return augment.apply(drawn, images)

    def _score(self, critic: Tensor, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Condition ns and hinge on the class by projection."""
        projected = class_logits[torch.arange(len(labels)), labels]
        return critic if self.config.gan.loss == "wgan-gp" else critic + projected

    def _generator_loss(self, critic: Tensor, class_logits: Tensor, labels: Tensor) -> Tensor:
        score = self._score(critic, class_logits, labels)
        if self.config.gan.loss == "ns":
            return -score.sigmoid().log().mean()
        if self.config.gan.loss == "hinge":
            return -score.mean()
        return -score.mean() + self.config.gan.aux_weight * cross_entropy(class_logits, labels)

    def _discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> Tensor:
        real_critic, real_logits = discriminator(real)
        fake_critic, fake_logits = discriminator(fake)
        real_score = self._score(real_critic, real_logits, labels)
        fake_score = self._score(fake_critic, fake_logits, fake_labels)
        if self.config.gan.loss == "ns":
            return -real_score.sigmoid().log().mean() - (1 - fake_score.sigmoid()).log().mean()
        if self.config.gan.loss == "hinge":
            return (1 - real_score).clamp(min=0).mean() + (1 + fake_score).clamp(min=0).mean()
        auxiliary = cross_entropy(real_logits, labels) + cross_entropy(fake_logits, fake_labels)
        return fake_score.mean() - real_score.mean() + self.config.gan.aux_weight * auxiliary

    def _penalty(
        self, step: int, discriminator: nn.Module, real: Tensor, fake: Tensor, mixing: Tensor, labels: Tensor
    ) -> Tensor | None:
        gan = self.config.gan
        if gan.loss != "wgan-gp" and step % gan.r1_every:
            return None
        images = mixing * real + (1 - mixing) * fake if gan.loss == "wgan-gp" else real
        images = images.requires_grad_(True)
        scores = self._score(*discriminator(images), labels)
        (slopes,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        squares = slopes.square().sum((1, 2, 3))
        if gan.loss == "wgan-gp":
            return gan.gradient_penalty * (squares.sqrt() - 1).square().mean()
        return gan.r1_every * gan.r1 / 2 * squares.mean()

    def _matching_loss(self, step: int, images_u8: Tensor, labels: Tensor, fake: Tensor, pool: State) -> Tensor:
        """tau^2 KL(softmax(Z_real / tau) || softmax(Z_fake / tau)), or DiM's loss without tau."""
        settings = self.config.refine
        network = registry.build(settings.pool.members[0], SPEC.shape, CLASSES).eval()
        network.load_state_dict(pool["networks"][0])
        operations = parse_strategy(settings.augment, SPEC.flip)
        random = rng.Draws(self.config.seed, rng.REFINE_AUGMENT, step)
        drawn = augment.draw(operations, BATCH, random, shared=True, pick="all")
        real, fake = (
            network(augment.apply(drawn, standardized_by_channel(images_unit)))
            for images_unit in (images_u8 / 255, (fake + 1) / 2)
        )
        if settings.pairing == "optimal":
            real = real[nearest_pairs(real, fake, labels)]
        if settings.loss == "log_mse":
            return (real.log_softmax(1) - fake.log_softmax(1)).square().mean()
        if settings.standardize:
            axis = 0 if settings.standardize_over == "batch" else 1
            real, fake = (
                (logits - logits.mean(axis, keepdim=True)) / logits.std(axis, correction=0, keepdim=True)
                for logits in (real, fake)
            )
        factor = settings.tau if settings.tau_mode == "multiply" else 1 / settings.tau
        p, q = (real * factor).softmax(1), (fake * factor).softmax(1)
        return settings.tau**2 * (p * (p.log() - q.log())).sum(1).mean()

    def _check_adam(
        self, name: str, optimizer: str, network: nn.Module, objective: Tensor, before: State, after: State
    ) -> None:
        """Assert that the moments took in the objective's gradient, and the weights moved by the moments."""
        gradients = torch.autograd.grad(objective, list(network.parameters()))
        largest = max(gradient.abs().max().item() for gradient in gradients)
        beta1, beta2 = self.config.gan.beta1, self.config.gan.beta2
        for index, ((place, _), gradient) in enumerate(zip(network.named_parameters(), gradients, strict=True)):
            nothing = {"step": torch.tensor(0.0), "exp_avg": 0 * gradient, "exp_avg_sq": 0 * gradient}
            old, new = before[optimizer]["state"].get(index, nothing), after[optimizer]["state"][index]
            count = old["step"] + 1
            mean = beta1 * old["exp_avg"] + (1 - beta1) * gradient
            root = (beta2 * old["exp_avg_sq"] + (1 - beta2) * gradient.square()).sqrt()
            for actual, expected in ((new["exp_avg"], mean), (new["exp_avg_sq"].sqrt(), root)):
                torch.testing.assert_close(
                    actual, expected, rtol=1e-3, atol=1e-5 * largest, msg=lambda text, place=place: f"{place}: {text}"
                )
            assert new["step"] == count
            # By the stored moments: where a gradient is nothing but rounding, Adam makes a whole step of it.
            root = (new["exp_avg_sq"] / (1 - beta2**count)).sqrt() + ADAM_EPS
            expected = before[name][place] - self.rate * new["exp_avg"] / (1 - beta1**count) / root
            torch.testing.assert_close(after[name][place], expected, rtol=1e-5, atol=1e-6)


def assert_same(first: Any, second: Any) -> None:
    """Assert that two nested states are equal to the bit."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)
