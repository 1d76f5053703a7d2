"""A short evaluation."""

from pathlib import Path

import pytest
from scoring import SHORT, Evaluate

from gdd.config import EvaluateConfig, RunConfig
from gdd.data.readers import Dataset
from gdd.evaluation import grid, sources
from gdd.evaluation.recipe import Conditions, Recipe
from gdd.evaluation.row import Row
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run


@pytest.fixture
def evaluate(dataset: Dataset, tmp_path: Path) -> Evaluate:
    """Evaluate in a run folder of its own: small students, one seed and IPC 1 unless told."""

    def call(
        *texts: str,
        recipe: Recipe = SHORT,
        folder: str = "run",
        data: Dataset = dataset,
        run: RunConfig | None = None,
        **settings: object,
    ) -> list[Row]:
        defaults = {"archs": ("mlp-w16",), "ipc": (1,), "seeds": (0,), "all_epochs": 1}
        chosen = EvaluateConfig(**{**defaults, **settings})  # type: ignore[arg-type]
        completed, floor_ipcs = sources.complete(
            [sources.read(text, teacher=chosen.teacher) for text in texts], chosen.ipc, data
        )
        jobs = grid.enumerate_jobs(completed, chosen.ipc, floor_ipcs, chosen.protocols, chosen.archs, chosen.seeds)
        behaviour = run or RunConfig(workers=1)
        with Run(tmp_path / folder, behaviour, {}, "test", make_accelerator(behaviour)) as opened:
            return grid.score_jobs(jobs, Conditions.of(chosen, data.spec, recipe), data, opened, config_hash="")

    return call
