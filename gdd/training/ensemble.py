"""Train the classifiers that judge samples."""

import logging
from pathlib import Path

import torch

from gdd import rng
from gdd.config import Config, EnsembleConfig, stages
from gdd.data.augment import AugmentedBatches
from gdd.data.batches import Batches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec, parse_strategy
from gdd.data.splits import Split
from gdd.models import registry
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.run import Run
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.origin import run_origin
from gdd.training.classifier import Fit, count_correct
from gdd.training.optimizers import sgd
from gdd.training.pool import execution_of, learning_flop, told_apart
from gdd.training.schedule import lr_factor

logger = logging.getLogger(__name__)


def train_judges(config: Config, dataset: Dataset, run: Run) -> Path:
    """Train one member after the other on the training part; return the ensemble's file.

    Its provenance has the accuracy on the validation part of each member and of all together.
    """
    settings, spec, seed = config.ensemble, dataset.spec, config.seed
    total = settings.steps * len(settings.archs)
    execution = execution_of(settings.archs, spec, ensemble_flop(settings, spec), run)
    train = dataset.train.to(run.device)
    plain = Batches(train.images_u8, train.labels, settings.batch_size, seed, rng.ENSEMBLE_BATCHES)
    normalize, augmentations = Normalizer(spec.mean, spec.std, run.device), parse_strategy(settings.augment, spec.flip)
    batches = AugmentedBatches(plain, normalize, augmentations, rng.ENSEMBLE_AUGMENT)

    def lr(step: int) -> float:
        return settings.lr * lr_factor("cosine", step % settings.steps, settings.steps)

    trainings, states = list[Fit](), dict[str, Stateful]()
    for index, arch in enumerate(settings.archs):
        with rng.seeded(seed, rng.INIT_ENSEMBLE, index):
            member = registry.build(arch, spec.shape, spec.num_classes)
        execution.place(member.to(run.device))
        optimizer = sgd(member, settings.lr, execution.fused)
        states |= {f"member {index}": member, f"optimizer {index}": optimizer}
        trainings.append(Fit(member, plain, optimizer, lr=lr, prepare=batches.prepare, execution=execution))

    for step in run.loop(states, total, plain.batch_size, stages.ENSEMBLE, fixed_world_size=False):
        training = trainings[step.index // settings.steps]
        step.record({"loss": training(range(step.index, step.done))})

    ensemble = Ensemble(settings.archs, spec, [training.network for training in trainings])
    accuracies = {"all": _accuracy(ensemble, dataset.val, run.device)}
    for name, judge in zip(told_apart(settings.archs), ensemble.members, strict=True):
        accuracies[name] = _accuracy(Ensemble([name], spec, [judge]), dataset.val, run.device)
    for name, accuracy in accuracies.items() if run.is_main and len(dataset.val.labels) else ():
        logger.info("ensemble: %s, %.2f %% of the validation images", name, accuracy)
    origin = run_origin(run, config, dataset, stages.ENSEMBLE, "real", run.seconds)
    if run.is_main:
        ensemble_file.save(run.folder, ensemble, {**origin, "validation_accuracy": accuracies})
    run.accelerator.wait_for_everyone()
    return run.folder / ensemble_file.FILE


def ensemble_flop(settings: EnsembleConfig, spec: DatasetSpec) -> float:
    """Return the FLOP of training all members."""
    return learning_flop(settings.archs, spec, len(settings.archs) * settings.steps * settings.batch_size)


def _accuracy(ensemble: Ensemble, val: Split, device: torch.device) -> float | None:
    """Return the percent of the validation images that it gets right; None without any."""
    if not len(val.labels):
        return None
    answers = count_correct(lambda images: ensemble.logits(images.to(device)).cpu(), val.images_u8, val.labels.cpu())
    return round(100 * answers.correct / len(val.labels), 2)
