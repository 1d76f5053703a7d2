"""All students of one evaluation: listed, shared among processes, kept as they finish, never trained twice."""

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from gdd.config import ConfigError
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.row import Row
from gdd.evaluation.sources import FLOOR, Protocol, Source
from gdd.evaluation.student import RealImages, StudentTrainer
from gdd.models import registry
from gdd.models.cost import forward_flop, unfilled
from gdd.runtime import checkpoint
from gdd.runtime.run import Run, progress_bar
from gdd.runtime.signals import Stopped, is_due

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl"
_PARTS = "rows-*.jsonl"


def enumerate_jobs(
    sources: Sequence[Source],
    ipc: tuple[int, ...],
    floor_ipcs: tuple[int, ...],
    protocols: tuple[Protocol, ...],
    archs: Sequence[str],
    seeds: Sequence[int],
) -> list[Job]:
    """Return every student once, in the order of the table, seeds fastest.

    Args:
        sources: as `sources.complete` returns them.
        ipc: images per class of sets drawn from generators.
        floor_ipcs: images per class at which random real images are scored.
        protocols: of generators; everything else is fixed.
        archs: of the students; ConfigError if one is unknown.
        seeds: of the students, and of the sets drawn for them.
    """
    jobs = (
        Job(source, source_ipc, protocol, registry.parse(arch).name, seed)
        for source in sources
        for source_ipc in source.ipcs(floor_ipcs if source.kind == FLOOR else ipc)
        for protocol in source.protocols(protocols)
        for arch in archs
        for seed in seeds
    )
    return list(dict.fromkeys(jobs))


def read_rows(folder: Path) -> list[Row]:
    """Return the rows that an evaluation has written so far; a line cut by a kill is ignored."""
    rows: dict[tuple[object, ...], Row] = {}
    for path in [folder / ROWS, *sorted(folder.glob(_PARTS))]:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                row = Row.from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            rows.setdefault(row.key, row)
    return list(rows.values())


def _merge(folder: Path) -> None:
    """Gather all processes' rows in one file of whole lines."""
    rows = read_rows(folder)
    text = "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
    checkpoint.write_atomically(folder / ROWS, lambda temporary: temporary.write_text(text))
    for path in folder.glob(_PARTS):
        path.unlink()


def _gather(run: Run) -> list[Row]:
    """Merge the rows of all processes when each has done its work, and return them on every process."""
    run.accelerator.wait_for_everyone()
    if run.is_main:
        _merge(run.folder)
    run.accelerator.wait_for_everyone()
    rows = read_rows(run.folder)
    # No process may append before all have read, or they would disagree on what is left to do.
    run.accelerator.wait_for_everyone()
    return rows


def evaluate(jobs: Sequence[Job], conditions: Conditions, dataset: Dataset, run: Run, config_hash: str) -> list[Row]:
    """Train and score every student that has no row yet, and return the rows of all, in the order of the jobs.

    Whole students are shared among the processes, at about equal cost to each.

    Args:
        jobs: the students.
        conditions: how all of them are trained.
        dataset: its test part is read only after a student has been trained.
        run: rows go to `rows.jsonl` in its folder, each as it finishes.
        config_hash: for the rows.

    Raises:
        ConfigError: an architecture or a source cannot be used; nothing has been trained then.
        Stopped: a signal came, or run.max_minutes had passed after a student; the same call goes on.
    """
    spec = dataset.spec
    if conditions.selects:
        _require_held_out(jobs, dataset)
    for arch in {job.arch for job in jobs} | ({conditions.teacher_arch} if conditions.teacher != "none" else set()):
        registry.build(arch, spec.shape, spec.num_classes)  # refuses what these images do not allow
    rows = {row.key: row for row in _gather(run)}
    pending = [job for job in jobs if job.key(conditions) not in rows]
    if run.is_main and len(pending) < len(jobs):
        logger.info("evaluate: %d of %d students were scored before", len(jobs) - len(pending), len(jobs))

    real = RealImages(
        dataset.train.to(run.device), dataset.val.to(run.device), cache(lambda: dataset.test().to(run.device))
    )
    trainer = StudentTrainer(real, spec, conditions, run.device, config_hash, keep=len({job.seed for job in jobs}))
    costs = [estimated_cost(job, conditions, spec, len(dataset.train.labels)) for job in pending]
    assigned = assign_jobs(costs, run.world_size)[run.rank]
    _work(run, trainer, [pending[index] for index in assigned])
    rows = {row.key: row for row in _gather(run)}
    missing = [job for job in jobs if job.key(conditions) not in rows]
    if missing:
        count = f"{len(jobs) - len(missing)} of {len(jobs)}"
        raise Stopped(f"evaluate: stopped after {count} students; the same command goes on")
    return [_with_source_of(job, rows[job.key(conditions)]) for job in jobs]


@cache
def flop_per_image(arch: str, shape: tuple[int, int, int], num_classes: int) -> float:
    network = unfilled(lambda: registry.build(arch, shape, num_classes))
    return forward_flop(network, lambda: network(torch.zeros(0, *shape)))


def estimated_cost(job: Job, conditions: Conditions, spec: DatasetSpec, all_images: int) -> float:
    """Return the forward FLOP of training a job's candidates; what comes on top is about in proportion."""
    images = all_images if job.ipc is None else job.ipc * spec.num_classes
    seen = conditions.recipe_for(job.source.kind).epochs * images * max(1, len(conditions.candidates))
    return seen * flop_per_image(job.arch, spec.shape, spec.num_classes)


def assign_jobs(costs: Sequence[float], world_size: int) -> list[list[int]]:
    """Return the indices of each process's jobs, ascending: the largest job first, to the least loaded process.

    The largest load is at most 4/3 of the best possible one (Graham 1969).
    """
    assigned: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0.0] * world_size
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        process = loads.index(min(loads))
        assigned[process].append(index)
        loads[process] += costs[index]
    return [sorted(indices) for indices in assigned]


def _require_held_out(jobs: Sequence[Job], dataset: Dataset) -> None:
    """Refuse to select on validation images that a source may have been distilled from."""
    for job in jobs:
        if job.source.provenance.get("data", dataset.fingerprint) != dataset.fingerprint:
            raise ConfigError(
                f"{job.source.label} was distilled with another validation part, so nothing can be selected on this "
                "one; use its seed and its data settings"
            )


def _with_source_of(job: Job, row: Row) -> Row:
    """Return the row with its source's name and provenance of now, which may not be those of when it was written."""
    facts = job.source.provenance
    known = {"method": facts.get("method"), "stage": facts.get("stage"), "generator_seconds": facts.get("seconds")}
    return Row.from_dict({**row.to_dict(), "source": job.source.label, **known})


def _work(run: Run, trainer: StudentTrainer, pending: list[Job]) -> None:
    """Score this process's jobs until run.max_minutes are over; a signal ends even a student in training."""
    path = run.folder / (ROWS if run.world_size == 1 else f"rows-{run.rank}.jsonl")
    title = "evaluate" if run.world_size == 1 else f"evaluate, process 1 of {run.world_size}"
    with progress_bar(run.is_main) as progress:
        for job in progress.track(pending, description=title):
            if is_due(None):  # a signal came when a stage was about to end
                return
            row = trainer.score(job)
            with path.open("a") as file:
                file.write(json.dumps(row.to_dict()) + "\n")
            logger.info("%s", describe(row))
            if is_due(run.settings.max_minutes):
                return


def describe(row: Row) -> str:
    """Return one line about a finished student."""
    amount = "all images" if row.ipc is None else f"ipc {row.ipc}"
    return (
        f"{row.source}, {amount}, {row.protocol}: {row.arch} seed {row.seed} {row.accuracy:.2f} % "
        f"({row.optimizer_steps} steps, loss {row.train_loss:.4f}, {row.seconds:.1f} s)"
    )
