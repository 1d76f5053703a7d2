"""All students of one evaluation: listed, dealt to processes, kept as they finish, never trained twice."""

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gdd import checkpoint
from gdd.config import Config, ConfigError, config_hash
from gdd.data.readers import Dataset
from gdd.data.splits import Split
from gdd.evaluation.protocol import FLOOR, Conditions, Job, Recipe, Source, open_sources
from gdd.evaluation.row import Row
from gdd.evaluation.student import Classroom, Real
from gdd.models import registry
from gdd.run import OutOfTime, Run

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl"
_PARTS = "rows-*.jsonl"

__all__ = ["ROWS", "Row", "enumerate_jobs", "evaluate", "read_rows"]


def enumerate_jobs(config: Config, sources: Sequence[Source], floors: tuple[int, ...]) -> list[Job]:
    """Return every student in the order of the table, seeds fastest.

    Args:
        config: evaluate.ipc, protocols, archs and seeds.
        sources: opened, floor first.
        floors: IPC at which random real images are scored.
    """
    settings = config.evaluate
    archs = dict.fromkeys(registry.parse(arch).name for arch in settings.archs)
    wanted = tuple(dict.fromkeys(settings.ipc))
    return [
        Job(source, ipc, protocol, arch, seed)
        for source in sources
        for ipc in source.ipcs(floors if source.kind == FLOOR else wanted)
        for protocol in source.protocols(tuple(dict.fromkeys(settings.protocols)))
        for arch in archs
        for seed in dict.fromkeys(settings.seeds)
    ]


def read_rows(folder: Path) -> list[Row]:
    """Return the rows that an evaluation has written so far; a line cut by a kill is ignored."""
    rows: dict[tuple[object, ...], Row] = {}
    for path in [folder / ROWS, *sorted(folder.glob(_PARTS))]:
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = Row.from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError):
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
    """Merge on the main process and return all rows on every process."""
    if run.is_main:
        _merge(run.folder)
    run.accelerator.wait_for_everyone()
    rows = read_rows(run.folder)
    # Nobody may append before everybody has read, or the processes would disagree on what is left to do.
    run.accelerator.wait_for_everyone()
    return rows


def evaluate(
    config: Config,
    dataset: Dataset,
    run: Run,
    sources: list[tuple[str, str]],
    recipe: Recipe | None = None,
    ceiling: bool = True,
) -> list[Row]:
    """Train and score every student of `config.evaluate` that has no row yet, and return the rows of all.

    Whole students are dealt to processes. Real random images at every IPC are scored too, whether named or not.

    Args:
        config: its `evaluate` part decides.
        dataset: its test part is read only after a student has been trained.
        run: rows go to `rows.jsonl` in its folder, each as it finishes.
        sources: names for the table, and real:random, real:all, a set's path or a generator's.
        recipe: instead of the config's.
        ceiling: whether all real images are scored if they are not named.

    Raises:
        ConfigError: a source, an architecture or an IPC cannot be used; nothing has been trained then.
        OutOfTime: run.max_minutes had passed after a student; the same call goes on.
    """
    settings, spec = config.evaluate, dataset.spec
    opened, floors = open_sources(sources, settings.ipc, dataset, ceiling)
    conditions = Conditions.of(settings, spec, recipe)
    if conditions.selects:
        _require_held_out(opened, dataset)
    jobs = enumerate_jobs(config, opened, floors)
    for arch in {job.arch for job in jobs} | ({conditions.teacher_arch} if conditions.teacher != "none" else set()):
        registry.build(arch, spec.shape, spec.num_classes)  # refuses what these images do not allow
    done = {row.key for row in _gather(run)}
    pending = [job for job in jobs if job.key(conditions) not in done]
    if run.is_main and len(pending) < len(jobs):
        logger.info("evaluate: %d of %d students were scored before", len(jobs) - len(pending), len(jobs))

    @lru_cache(maxsize=1)
    def test() -> Split:
        return _on(run, dataset.test())

    train, val = _on(run, dataset.train), _on(run, dataset.val)
    shown = config_hash(settings, conditions.hash, run.fingerprint)
    classroom = Classroom(Real(train, val, test), spec, conditions, run.device, shown, keep=len(settings.seeds))
    _work(run, classroom, pending, len(jobs) - len(pending))
    found = {row.key: row for row in _gather(run)}
    return [_named(found[job.key(conditions)], job) for job in jobs]


def _on(run: Run, split: Split) -> Split:
    return Split(split.images_u8.to(run.device), split.labels.to(run.device))


def _require_held_out(sources: Sequence[Source], dataset: Dataset) -> None:
    """Refuse to select on validation images that a source may have been distilled from."""
    for source in sources:
        if source.provenance.get("data", dataset.fingerprint) != dataset.fingerprint:
            raise ConfigError(
                f"{source.label} was distilled with another validation part, so nothing can be selected on this one; "
                "use its seed and its data settings"
            )


def _named(row: Row, job: Job) -> Row:
    """Return the row with what this evaluation knows of its source, whose file may have been described anew."""
    facts = job.source.provenance
    known = {"method": facts.get("method"), "stage": facts.get("stage"), "generator_seconds": facts.get("seconds")}
    return Row.from_dict({**row.to_dict(), "source": job.source.label, **known})


def _work(run: Run, classroom: Classroom, pending: list[Job], before: int) -> None:
    path = run.folder / (ROWS if run.world_size == 1 else f"rows-{run.rank}.jsonl")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not run.is_main) as progress:
        task = progress.add_task("evaluate", total=before + len(pending), completed=before)
        # In rounds of one job each: out_of_time is a collective call, so all must make it equally often.
        for start in range(0, len(pending), run.world_size):
            if start + run.rank < len(pending):
                job = pending[start + run.rank]
                row = classroom.score(job)
                with path.open("a") as file:
                    file.write(json.dumps(row.to_dict()) + "\n")
                logger.info("%s", describe(row))
            stop = min(start + run.world_size, len(pending))
            progress.update(task, completed=before + stop)
            if run.out_of_time and stop < len(pending):
                raise OutOfTime(
                    f"evaluate: stopped after {before + stop} of {before + len(pending)} students; "
                    "the same command goes on"
                )


def describe(row: Row) -> str:
    """Return one line about a finished student."""
    amount = "all images" if row.ipc is None else f"ipc {row.ipc}"
    return (
        f"{row.source}, {amount}, {row.protocol}: {row.arch} seed {row.seed} {row.accuracy:.2f} % "
        f"({row.optimizer_steps} steps, loss {row.train_loss:.4f}, {row.seconds:.1f} s)"
    )
