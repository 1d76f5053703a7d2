"""Students that are trained at once get the rows of students that are trained one after another."""

import dataclasses
from pathlib import Path

import torch
from scoring import Evaluate, timeless

from gdd.config import RunConfig
from gdd.evaluation import grid
from gdd.evaluation.grid import Deal
from gdd.evaluation.recipe import Job
from gdd.evaluation.sources import Source
from gdd.sampling import generator_file, sample, set_file


def test_two_workers_write_the_rows_of_one_process(evaluate: Evaluate, generator: Path, tmp_path: Path) -> None:
    drawn = sample.sample_set(generator_file.load(generator), 2, 0)
    soft = torch.randn(len(drawn.labels), 10, generator=torch.Generator().manual_seed(0))
    set_file.save(tmp_path / "set.safetensors", dataclasses.replace(drawn, soft_labels=soft.half()))
    taught = {"teacher": "set", "teacher_arch": "convnet3-w4"}
    chosen = {"select_alpha": (0.2, 0.8), "select_temperature": (1.0, 4.0)}
    settings = {"archs": ("mlp-w16", "convnet3-w4"), "seeds": (0, 1), **taught, **chosen}
    texts = str(generator), str(tmp_path / "set.safetensors")
    alone, together = (
        evaluate(*texts, folder=str(workers), run=RunConfig(workers=workers, threads=1), **settings)
        for workers in (1, 2)
    )
    assert [timeless(row) for row in together] == [timeless(row) for row in alone]
    # Floor at two IPC, the generator fixed and streamed, the set, the ceiling.
    assert len(together) == 2 * 2 * (2 + 2 + 1 + 1)
    assert together[0].device.endswith("1 thread)")
    assert grid.read_rows(tmp_path / "2") == together
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("1", "2")]
    assert names[0] == names[1]


def test_the_last_student_is_trained_with_a_workers_threads(evaluate: Evaluate, tmp_path: Path) -> None:
    """Its row must not tell that the others had been scored before."""
    evaluate(run=RunConfig(workers=1, threads=1))
    kept = (tmp_path / "run" / grid.ROWS).read_text().splitlines()[:1]
    (tmp_path / "run" / grid.ROWS).write_text("\n".join(kept))
    torch.set_num_threads(1)
    last = evaluate(run=RunConfig(workers=2, threads=3))[-1]
    assert last.device.endswith("3 threads)")


def jobs_on(sources: str, seeds: int, archs: int) -> list[Job]:
    """Return the jobs of some sources, named by a letter each."""
    made = [Source(name, "generator", name) for name in sources]
    return [
        Job(source, 10, "stream", f"arch{arch}", seed)
        for source in made
        for seed in range(seeds)
        for arch in range(archs)
    ]


class TestDeal:
    def test_a_worker_stays_with_its_data_and_takes_the_costliest_first(self) -> None:
        deal = Deal(jobs_on("ab", 1, 3), [1, 3, 2, 4, 6, 5], lambda: False)
        assert [deal(0) for _ in range(3)] == [4, 5, 3]
        assert [deal(0) for _ in range(4)] == [1, 2, 0, None]

    def test_workers_begin_on_different_data_and_share_what_is_left(self) -> None:
        deal = Deal(jobs_on("ab", 1, 2), [4, 3, 2, 1], lambda: False)
        assert [deal(worker) for worker in (0, 1)] == [0, 2]
        # A third one finds all data begun, and helps with the costliest.
        assert deal(2) == 1
        assert [deal(worker) for worker in (0, 1, 2)] == [3, None, None]

    def test_every_seed_has_data_of_its_own(self) -> None:
        deal = Deal(jobs_on("a", 2, 2), [1, 1, 1, 1], lambda: False)
        assert [deal(worker) for worker in (0, 1, 0, 1)] == [0, 2, 1, 3]

    def test_when_it_is_over_only_a_first_student_is_begun(self) -> None:
        deal = Deal(jobs_on("ab", 1, 2), [1, 1, 1, 1], lambda: True)
        assert [deal(worker) for worker in (0, 1, 0, 1)] == [0, 2, None, None]
