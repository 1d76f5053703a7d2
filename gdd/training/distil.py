"""The GAN's loop, once: pretraining, and refinement, in which networks guide the generator besides.

    pretrain   L = L_GAN
    refine     L = L_GAN + lambda * L_SKD
               L_SKD = tau^2 * KL(d_real || d_synthetic),   d = softmax(standardize(logits) / tau)

Logits are those of a network drawn from the pool (guidance.py). In place of L_SKD stands what `refine.loss` names; with
none, refinement goes on as pretraining does. GAN and schedule: DiM (Wang et al., arXiv 2303.04707); self-knowledge
distillation: Li et al., arXiv 2501.04202; docs/method.md says what the papers leave open.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, ConfigError, stages
from gdd.data.batches import Batches
from gdd.data.pixels import u8_to_pm1
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, parse_strategy
from gdd.models.cost import gan_flop_of, gan_step_flop
from gdd.models.gan import make_discriminator, make_generator, width_of
from gdd.rng import Count
from gdd.runtime import checkpoint
from gdd.runtime.graphs import Rate, Replayed, Scalars
from gdd.runtime.run import Run, Step
from gdd.sampling import generator_file
from gdd.sampling.origin import run_origin
from gdd.training.gan import GanTrainer
from gdd.training.generator_choice import GeneratorChoice, make_choice
from gdd.training.guidance import Guidance, make_guidance
from gdd.training.monitor import Monitor
from gdd.training.schedule import lr_factor


def distil(config: Config, dataset: Dataset, run: Run, start: Path | None = None) -> Path:
    """Pretrain the GAN or, from the finished run folder `start`, refine it; return the generator's file."""
    stage = stages.PRETRAIN if start is None else stages.REFINE
    settings = stages.steps_of(config, stage)
    gan = gan_trainer(config, stage, dataset.spec, run)
    batches = real_batches(dataset, settings.batch_size, config.seed, stage, run)
    choice = make_choice(config, gan, dataset, run)
    monitor = Monitor(batches, dataset.spec.num_classes, config.gan.noise_dim, config.seed)
    guidance, critic_learns, method, seconds_before = None, True, "gan", 0.0
    if start is not None:
        _go_on_from(start, gan)
        guidance = make_guidance(config, dataset, batches, run) if config.refine.guided else None
        critic_learns, method = config.refine.discriminator == "trained", config.refine.method
        seconds_before = generator_file.load(start).provenance["seconds"]
    if not critic_learns:
        gan.plain_discriminator.eval()  # or its spectral norms would go on
    states = {**gan.states(), "choice": choice, **(guidance.states() if guidance else {})}

    def take(kind: tuple[nn.Module | None, bool], step: Count, lr: Rate, lr_critic: Rate, *real: Tensor) -> Scalars:
        # Generate images of the real batch's classes.
        (network, penalised), (images_u8, labels, *others_u8) = kind, real  # (B, C, H, W) uint8, (B,)
        fake = gan.generate(step, labels)  # (B, C, H, W) in [-1, 1]

        # Ask both losses what they want of these images: dL/dfake = dL_GAN/dfake + lambda dL_SKD/dfake.
        loss = gan.adversarial_loss(step, fake, labels)
        (gradient,) = torch.autograd.grad(loss, fake)
        scalars = {"loss/generator": loss.detach()}
        if guidance is not None and network is not None:
            asked, found = guidance.gradient(network, step, images_u8, fake, labels, gradient, *others_u8)
            gradient, scalars = gradient + asked, scalars | found

        # Update the generator and, unless it is a fixed critic, the discriminator.
        gan.update_generator(lr, fake, gradient)
        if critic_learns:
            real_pm1 = u8_to_pm1(images_u8)
            scalars |= gan.update_discriminator(step, lr_critic, real_pm1, labels, penalised=penalised)
        return scalars

    def changed() -> Iterator[list[Tensor]]:
        return itertools.chain(gan.changed(), guidance.changed() if guidance else ())

    taken = Replayed(take, changed, run.device, wanted=guidance is None or guidance.replayed)
    for step in run.loop(states, settings.steps, batches.batch_size, stage):
        # Draw a real batch and, in refinement, a network.
        real: tuple[Tensor, ...] = batches(step.index)
        network = None
        if guidance is not None:
            real, network = (*real, *guidance.others(step.index)), guidance.pool.network(step.index)
        kind = network, critic_learns and gan.penalises(step.index)
        rates = gan.lr(step.index), gan.lr_discriminator(step.index)
        step.record(taken(kind, step.index, *rates, *real))
        _observe(step, gan, monitor, choice, guidance)

    origin = run_origin(run, config, dataset, stage, method, seconds_before + run.seconds)
    generator, chosen = choice.generator()
    if run.is_main:
        from torchvision.utils import save_image  # takes a second to import, for which no start need wait

        save_image(monitor.grid(monitor.sample(generator)), run.folder / "grid.png")
        # Last, for its presence says that the stage is finished.
        generator_file.save(run.folder, generator, dataset.spec, {**origin, **chosen})
    run.accelerator.wait_for_everyone()
    return run.folder / generator_file.FILE


def _go_on_from(start: Path, gan: GanTrainer) -> None:
    try:
        gan.start_from(checkpoint.newest(start))
    except checkpoint.Damaged as error:  # an earlier one would be another GAN
        raise ConfigError(f"{error}; remove {start} to pretrain anew") from error


def _observe(step: Step, gan: GanTrainer, monitor: Monitor, choice: GeneratorChoice, guidance: Guidance | None) -> None:
    """Choose if that is due, and record the pool and diversity when a line is due and a grid when a picture is."""
    if guidance is not None:
        guidance.observe(step)
    accuracies = choice.observe(step.done, step.total)
    step.record(accuracies)
    step.log_due = step.log_due or bool(accuracies)
    if not (step.log_due or step.grid_due):
        return
    images = monitor.sample(gan.average)
    if step.log_due:
        step.record(monitor.diversity(images))
    if step.grid_due:
        step.images = monitor.grid(images)


def gan_trainer(config: Config, stage: str, spec: DatasetSpec, run: Run) -> GanTrainer:
    """Build the networks, the same for one seed, and the trainer of a stage."""
    gan, settings = config.gan, stages.steps_of(config, stage)
    sizes = gan.arch, spec.shape, spec.num_classes, width_of(gan, spec.shape)
    with rng.seeded(config.seed, rng.INIT_GAN):
        generator, discriminator = make_generator(*sizes, gan.noise_dim), make_discriminator(*sizes)
    precision = run.precision(gan_flop_of(gan, spec.shape, spec.num_classes))
    factor = partial(lr_factor, settings.schedule, steps=settings.steps, warmup=settings.warmup)
    return GanTrainer(
        generator,
        discriminator,
        loss=gan.loss,
        lr=lambda step: settings.lr * factor(step),
        lr_discriminator=lambda step: (settings.lr_discriminator or settings.lr) * factor(step),
        betas=(gan.beta1, gan.beta2),
        ema_decays=gan.ema_decays,
        aux_weight=gan.aux_weight,
        gradient_penalty=gan.gradient_penalty,
        r1=gan.r1_weight,
        r1_every=gan.r1_every,
        augmentations=parse_strategy(gan.augment, spec.flip),
        seed=config.seed,
        stage=stage,
        accelerator=run.accelerator,
        execution=run.execution((generator, discriminator), precision, adversarial_flop(config, stage, spec)),
    )


def adversarial_flop(config: Config, stage: str, spec: DatasetSpec) -> float:
    """Return the FLOP of a stage's adversarial steps, those of guidance and choice not included."""
    gan, settings = config.gan, stages.steps_of(config, stage)
    per_image = gan_step_flop(*gan_flop_of(gan, spec.shape, spec.num_classes), gan.penalties)
    return settings.steps * settings.batch_size * per_image


def real_batches(dataset: Dataset, batch_size: int, seed: int, stream: str, run: Run) -> Batches:
    """Return this process's rows of the training batches, the images on its device."""
    size = min(batch_size, len(dataset.train.labels))
    if size % run.world_size:
        # Otherwise the weight of an image in the loss would depend on its process.
        raise ConfigError(f"{size} images per step cannot be divided evenly among {run.world_size} processes")
    return Batches(*dataset.train.to(run.device), batch_size, seed, stream, run.rank, run.world_size)
