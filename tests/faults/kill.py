"""Prove that kill -9 loses nothing: jobs that are killed again and again end as those that were left alone.

    python tests/faults/kill.py --jobs pretrain --processes 1 --kills 20

Each job runs once undisturbed. Then the same command is killed with SIGKILL and started again, in another folder,
until it has been killed so often, and what it left is compared to the bit. A job that ends before that is compared
and begun anew. Exit code 1 if anything differs or a start fails by itself.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/commands.py

import differences
from jobs import ENVIRONMENT, JOBS, Job
from killable import Killable

# When a start is killed: before its work, at any moment of it, when a file is being written, or a line.
MOMENTS, SHARES = ("start", "work", "write", "line"), (1, 4, 4, 1)
# Of the kills on several processes, those of one process only.
ALONE = 0.3
# A kill comes at most so many steps, rows or shards later than it was due, to meet any moment between two writes.
PAUSE = 3


HEAD = ["job", "processes", "kills", "in a write", "of one process", "chains", "resumed at", "resuming s", "result"]


@dataclass
class Tally:
    """What happened to one job on a number of processes."""

    job: str
    processes: int
    kills: int = 0
    torn: int = 0
    alone: int = 0
    chains: int = 0
    resumed_at: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        at = f"{min(self.resumed_at)}-{max(self.resumed_at)}" if self.resumed_at else "-"
        seconds = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        counts = (self.processes, self.kills, self.torn, self.alone, self.chains)
        return [self.job, *map(str, counts), at, seconds, "; ".join(self.faults) or "equal"]


class Attack:
    """One job on a number of processes: its reference, and chains of kills until there were enough.

    Args:
        job: to kill.
        processes: of the command.
        kills: in all; the job gets work for so many.
        rng: of the moments.
        out: a new folder for everything.
        stage_1: run folder of a finished stage 1.
    """

    def __init__(self, job: Job, processes: int, kills: int, rng: random.Random, out: Path, stage_1: Path) -> None:
        self.job, self.kills, self.rng, self.out, self.stage_1 = job, kills, rng, out, stage_1
        self.tally, self.starts = Tally(job.name, processes), 0
        out.mkdir(parents=True)
        self.reference = out / "reference" / job.folder
        self.startup, self.work = self._undisturbed()
        self.total = job.progress(self.reference)

    def moments(self) -> list[str]:
        """Draw when to kill; the last kill meets the end, where much is written and little is left to do."""
        return [*self.rng.choices(MOMENTS, SHARES, k=self.kills - 1), "end"]

    def run(self, moments: Sequence[str]) -> Tally:
        """Kill at these moments, each as soon as a start lives to see it, and let the job end after the last."""
        left = list(moments)
        while not self.tally.faults:
            root = self.out / f"chain-{self.tally.chains + 1}"
            if self._once(root, left[0] if left else None):
                del left[:1]
                continue
            self._compare(root)
            if not left:
                break
        return self.tally

    def _undisturbed(self) -> tuple[float, float]:
        """Make the reference and return the seconds before its work and those of its work."""
        process = self._start(self.out / "reference")
        process.survives(_never)
        ended = time.monotonic()
        if process.end() or process.began is None:
            raise RuntimeError(_complaint(process))
        if wrong := differences.between(self.reference, self.reference):
            raise RuntimeError(f"the reference of {self.job.name} is wrong itself: {wrong}")
        startup, work = process.began - process.started, ended - process.began
        _say(f"{self.job.name} x{self.tally.processes}: reference in {startup:.1f} + {work:.1f} s")
        return startup, work

    def _start(self, root: Path) -> Killable:
        self.starts += 1
        command = self.job.command(root, self.stage_1, self.kills, self.tally.processes)
        log = self.out / f"start-{self.starts:03d}.log"
        return Killable(command, ENVIRONMENT, root / self.job.folder, log)

    def _once(self, root: Path, moment: str | None) -> bool:
        """Start the command and kill it at the moment, if any; False if it ended by itself, well or not."""
        folder, tally = root / self.job.folder, self.tally
        again, progress, old, alone = root.exists(), self.job.progress(folder), _left_in(folder), tally.alone
        root.mkdir(exist_ok=True)
        process, struck = self._start(root), False
        try:
            struck = self._strike(process, moment)
            if not struck and process.process.returncode:
                tally.faults.append(_complaint(process))
        except TimeoutError as error:
            tally.faults.append(str(error))
        finally:
            code = process.end()
        torn = bool(struck and _left_in(folder) - old)
        tally.kills += struck
        tally.torn += torn
        if again:
            tally.resumed_at.append(progress)
        if again and process.resumed:
            tally.seconds.append(process.resumed - process.started)
        who = f"{self.job.name} x{tally.processes}, chain {tally.chains + 1}"
        how = f"{moment}{', one process' * (tally.alone - alone)}{', in a write' * torn}"
        what = f"killed ({how})" if struck else f"ended with code {code}"
        seconds = time.monotonic() - process.started
        _say(f"{who}: kill {tally.kills}/{self.kills}, from {progress}: {what} after {seconds:.1f} s")
        return struck

    def _strike(self, process: Killable, moment: str | None) -> bool:
        """Kill at the moment; False if the command ended before."""
        if moment is None:
            return process.survives(_never)
        if not self._lives_until(process, moment):
            return False
        if self.tally.processes > 1 and self.rng.random() < ALONE and (left := process.kill_one(self.rng)) is not None:
            self.tally.alone += 1
            self.tally.faults += [left] * bool(left)
            return True
        return process.kill()

    def _lives_until(self, process: Killable, moment: str) -> bool:
        if moment == "start":
            return process.survives(_never, self.rng.uniform(0, self.startup))
        # Half of the writes that are met are among the first, which mend what the kill before left.
        if moment == "write" and self.rng.random() < 0.5:
            nth, met = self.rng.randint(1, 3), set[str]()
            return process.survives(lambda names: met.update(_temporary(names)) or len(met) >= nth)
        if not process.begins():
            return False
        if moment == "end":
            return process.survives(lambda names: any(name.startswith(f".{self.job.final}.") for name in names))
        # By what is done, not by time, for another load of the machine changes how fast it is done. Far enough for all
        # kills together to reach the last third, and near enough to leave some work.
        share = self.rng.uniform(0, min(0.8, 2 / self.kills))
        goal = min(self.total, self.job.progress(process.folder) + share * self.total)
        if not process.survives(lambda _: self.job.progress(process.folder) >= goal):
            return False
        if not process.survives(_never, self.rng.uniform(0, PAUSE * self.work / self.total)):
            return False
        if moment == "write" and self.job.steady:
            return process.survives(lambda names: bool(_temporary(names)))
        if moment in ("write", "line"):
            return process.survives(lambda names: any(name.startswith(self.job.lines) for name in names))
        return True

    def _compare(self, root: Path) -> None:
        if self.tally.faults:
            return
        try:
            self.tally.faults += differences.between(self.reference, root / self.job.folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            self.tally.faults.append(f"cannot be compared ({error!r})")
        self.tally.chains += 1


def _temporary(names: Iterable[str]) -> set[str]:
    """Return those that are written to before they are renamed."""
    return {name for name in names if name.startswith(".") and name.endswith(".tmp")}


def _left_in(folder: Path) -> set[str]:
    """Return the temporary files of writers that were killed."""
    return _temporary(path.name for path in folder.rglob("*"))


def _never(names: list[str]) -> bool:
    return False


def _complaint(process: Killable) -> str:
    lines = process.log.read_text(errors="replace").split("\n")
    tail = " / ".join(line.strip() for line in lines if line.strip())[-600:]
    return f"exit code {process.process.returncode}, {process.log}: {tail}"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def prepare(out: Path) -> Path:
    """Run stage 1 once for the jobs that build on it, and return its run folder."""
    job = JOBS["pretrain"]
    return Attack(job, 1, 1, random.Random(0), out, out).reference


def table(tallies: Sequence[Tally]) -> str:
    """Return the results as a markdown table."""
    rows = [HEAD, ["---"] * len(HEAD), *(tally.cells() for tally in tallies)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--kills", type=int, default=20, help="of each job on each number of processes")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--out", type=Path, help="folder for all runs; a temporary one, removed if all is equal")
    parser.add_argument("--table", type=Path, help="file for the table")
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="gdd-kill-"))).absolute()
    stage_1 = prepare(out / "stage-1")
    tallies = []
    for processes in options.processes:
        for name in options.jobs:
            rng = random.Random(f"{options.seed} {name} {processes}")
            attack = Attack(JOBS[name], processes, options.kills, rng, out / f"{name}-{processes}", stage_1)
            tallies.append(attack.run(attack.moments()))
            if options.table:
                options.table.write_text(table(tallies))
            print(table(tallies), flush=True)
    if any(tally.faults for tally in tallies):
        print(f"Everything is kept in {out}")
        return 1
    if options.out is None:
        shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
