"""What is trained on a result, or measured of it: scores, comparisons, landscapes, audits."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gdd.config import Config, ConfigError, stable_hash, stages
from gdd.data.spec import DatasetSpec
from gdd.evaluation import dd_ranking, equal_bytes, grid, sources
from gdd.evaluation.budget import Budget
from gdd.evaluation.dd_ranking import Arm
from gdd.evaluation.landscape import LANDSCAPE_FILE, Landscape, measure_landscape
from gdd.evaluation.named import teacher_beside
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.row import Row
from gdd.evaluation.sources import Source
from gdd.models.cost import classifier_flop
from gdd.pipeline.opening import Inputs, check_ensemble, own_sources, plan, read_sources
from gdd.pipeline.stages import distill, open_run, train_ensemble
from gdd.runtime.run import Run
from gdd.sampling import ensemble_file

if TYPE_CHECKING:  # pandas, matplotlib and scipy take a second, and are needed when all is scored
    from gdd.evaluation.audit import Audit
    from gdd.report.compare import Compared
    from gdd.report.tables import Section

logger = logging.getLogger(__name__)


def distill_and_score(config: Config, inputs: Inputs) -> tuple[Path, list[Row]]:
    """Distil, score what came out unless `score` is off, and return the run folder and the rows."""
    folder = distill(config, inputs.dataset, inputs.accelerator)
    if not config.score:
        return folder, []
    # Read again: what was named may have been distilled anew.
    jobs = plan(config, inputs.dataset, read_sources(config) or own_sources(config))
    return folder, evaluate(config, inputs._replace(jobs=jobs))


def evaluate(config: Config, inputs: Inputs) -> list[Row]:
    """Score the planned students, write tables, a picture and the cards of the run's stages, and return their rows."""
    from gdd.report import card, tables

    def write(folder: Path, rows: list[Row]) -> list[Path]:
        return [*tables.write_evaluation(folder, rows), *card.write_stages(folder.parent)]

    (rows,) = score_arms(stages.EVALUATE, config, inputs, [Arm(config.evaluate, inputs.jobs)], write)
    return rows


def score_arms(
    stage: str, config: Config, inputs: Inputs, arms: Sequence[Arm], write: Callable[..., list[Path]]
) -> list[list[Row]]:
    """Score the students of each arm, let the main process `write` folder and rows, and return each arm's rows.

    A task of an array job scores its share of the first arm that is not scored, in a folder of its own.
    """
    dataset, spec, array, rows_of_arms = inputs.dataset, inputs.dataset.spec, inputs.array, list[list[Row]]()
    part = "" if array is None or array.share is None else f"{grid.SHARE}{array.share}"
    if array is not None and inputs.accelerator.num_processes > 1:
        processes = inputs.accelerator.num_processes
        raise ConfigError(f"gdd was started in {processes} processes, expected one with --submit or --share")
    # The data are all that decides a score and does not stand in its row.
    with open_run(config, stage, stable_hash(spec.to_dict(), dataset.fingerprint), inputs.accelerator, part) as run:
        for settings, jobs in arms:
            conditions = _executed(Conditions.of(settings, spec), jobs, spec, run)
            config_hash = stable_hash(settings, conditions.hash, run.fingerprint)
            rows_of_arms.append(grid.score_jobs(jobs, conditions, dataset, run, config_hash, array))
        if run.is_main and not part:
            for path in write(run.folder, *rows_of_arms):
                logger.info("wrote %s", path)
    return rows_of_arms


def _executed(conditions: Conditions, jobs: Sequence[Job], spec: DatasetSpec, run: Run) -> Conditions:
    """Return the conditions with the precision of all their networks, so that rows of one table have the same."""
    archs = {*(job.arch for job in jobs), *conditions.teacher_archs}
    flop = (classifier_flop(arch, spec.shape, spec.num_classes) for arch in sorted(archs))
    return replace(conditions, precision=run.precision(flop))


def _words(replicates: bool, scores: bool) -> list[str]:
    """Return the flags of a comparison that are no settings."""
    return ["--replicates"] * replicates + ["--scores", "dd-ranking"] * scores


def compare(
    config: Config,
    inputs: Inputs,
    compared: "Sequence[Compared]",
    marks: Sequence[float],
    replicates: bool = False,
    scores: bool = False,
) -> "list[Section]":
    """Score the planned students, write tables and pictures, and return a terminal's tables.

    Each source is compared with the first of `compared`; the picture of seconds shows `marks`, accuracies in percent.
    Of `replicates`, which share a label, intervals are over distillations and students. DD-Ranking's `scores` are
    a table more, and take more students.
    """
    from gdd.report import commands
    from gdd.report import compare as comparison
    from gdd.report import dd_ranking as ranking

    def ranked(rows_of_arms: Sequence[list[Row]], brief: bool) -> "list[Section]":
        if not scores:
            return []
        rows, other, hard = rows_of_arms
        return [ranking.section(rows, other, hard, brief, replicates)]

    def write(folder: Path, *rows_of_arms: list[Row]) -> list[Path]:
        more = ranked(rows_of_arms, brief=False)
        command = commands.comparing(
            config, [*_words(replicates, scores), *(["--mark", *map(str, marks)] if marks else [])]
        )
        return comparison.write_comparison(folder, rows_of_arms[0], compared, command, marks, replicates, more)

    arms = [Arm(config.evaluate, inputs.jobs)]
    if scores:
        arms += dd_ranking.arms(config.evaluate, inputs.jobs, inputs.dataset.spec.flip)
    rows_of_arms = score_arms(stages.COMPARE, config, inputs, arms, write)
    reference = compared[0].source.label
    tables = comparison.comparison_sections(rows_of_arms[0], reference, brief=True, replicates=replicates)
    return [*tables, *ranked(rows_of_arms, brief=True)]


def compare_within(
    budget: Budget,
    config: Config,
    inputs: Inputs,
    named: Sequence[Source],
    replicates: bool = False,
    scores: bool = False,
) -> "list[Section]":
    """Score sources of equal bytes at equal steps, write tables and a picture, and return a terminal's tables.

    Args:
        budget: what each source may take; its teacher is trained if it has none.
        config: the settings.
        inputs: the data, and students as planned so far.
        named: sets and generators.
        replicates: whether intervals are over distillations and students; the sources share a label then.
        scores: whether DD-Ranking's scores are a table more, which takes more students.
    """
    from gdd.report import commands
    from gdd.report import dd_ranking as ranking
    from gdd.report import equal_bytes as report

    dataset, spec = inputs.dataset, inputs.dataset.spec
    words = ["--budget", budget.text, *_words(replicates, scores)]
    words += [] if budget.teacher is None else ["--evaluate.teacher", str(budget.teacher)]
    command = commands.comparing(config, words, with_ensemble=budget.teacher is None)
    if budget.teacher is None:
        check_ensemble(config, dataset)
        folder = train_ensemble(config, dataset, inputs.accelerator)
        budget = replace(budget, teacher=folder / ensemble_file.FILE)
        inputs = inputs._replace(jobs=plan(config, dataset, named, budget=budget))
    settings = equal_bytes.settings_within(budget, config.evaluate, spec)
    allowance, remarks = equal_bytes.in_words(budget, spec), equal_bytes.remarks(budget, spec, named)

    def ranked(rows_of_arms: Sequence[list[Row]], brief: bool) -> "list[Section]":
        if not scores:
            return []
        rows, other, hard = rows_of_arms
        return [ranking.section(rows, other, hard, brief, replicates, equal_bytes=True)]

    def write(folder: Path, *rows_of_arms: list[Row]) -> list[Path]:
        more = ranked(rows_of_arms, brief=False)
        return report.write_budget(folder, rows_of_arms[0], allowance, remarks, named, command, replicates, more)

    arms = [Arm(settings, inputs.jobs)]
    if scores:
        arms += dd_ranking.arms(settings, inputs.jobs, spec.flip)
    rows_of_arms = score_arms(stages.COMPARE, config, inputs, arms, write)
    tables = report.budget_sections(rows_of_arms[0], allowance, remarks, brief=True, replicates=replicates)
    return [*tables, *ranked(rows_of_arms, brief=True)]


def landscape(config: Config, inputs: Inputs, count: int, reach: float) -> Landscape:
    """Train one student, or find it trained, measure its loss, write numbers and picture, and return what was found.

    The job is one, of stored images; the rest is as `evaluation.landscape.measure_landscape` takes it.
    """
    from gdd.report import measured

    (job,), dataset = inputs.jobs, inputs.dataset
    conditions, spec = Conditions.of(config.evaluate, dataset.spec), dataset.spec
    student = job.key(conditions, job.images(spec, len(dataset.train.labels)))
    fingerprint = stable_hash(stages.LANDSCAPE, student, spec.to_dict(), dataset.fingerprint)
    with open_run(config, stages.LANDSCAPE, fingerprint, inputs.accelerator) as run:
        if run.world_size > 1:
            raise ConfigError(f"gdd landscape was started in {run.world_size} processes, expected one")
        measurement = measure_landscape(job, _executed(conditions, [job], spec, run), dataset, run, count, reach)
        measured.draw_landscape(run.folder / measured.LANDSCAPE_PICTURE, measurement)
        for name in (LANDSCAPE_FILE, measured.LANDSCAPE_PICTURE):
            logger.info("wrote %s", run.folder / name)
    return measurement


def audit(config: Config, inputs: Inputs, source: Source) -> "Audit":
    """Compare a source with the images it was distilled from, write numbers and picture, and return what was found.

    The cards of the run tell it. Of a generator, the first of `evaluate.ipc` samples of each class are drawn.
    """
    from gdd.evaluation import audit as measures
    from gdd.report import card, measured

    dataset = inputs.dataset
    source = sources.fit_source(source, dataset)
    real = measures.compared_images(source, dataset)  # a folder that is claimed would refuse other data
    fingerprint = stable_hash(stages.AUDIT, source.hash, dataset.spec.to_dict(), dataset.fingerprint)
    with open_run(config, stages.AUDIT, fingerprint, inputs.accelerator) as run:
        if run.world_size > 1:
            raise ConfigError(f"gdd audit was started in {run.world_size} processes, expected one")
        answers, beside = None, None if source.generator is None or source.path is None else teacher_beside(source.path)
        if beside is not None:  # first, since it may be refused
            answers = measures.measure_answers(ensemble_file.load(beside), dataset, real.part)
        result, evidence = measures.measure_audit(source, real, dataset, config.evaluate.ipc[0])
        result = replace(result, answers=answers)
        measures.write_audit(run.folder, result)
        measured.draw_audit(run.folder / measured.AUDIT_PICTURE, result, evidence)
        written = [run.folder / name for name in (measures.AUDIT_FILE, measured.AUDIT_PICTURE)]
        for path in [*written, *card.write_stages(run.folder.parent)]:
            logger.info("wrote %s", path)
    return result
