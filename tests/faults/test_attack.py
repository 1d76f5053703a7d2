"""The attack itself, on programs of a few lines: it calls the careful one equal and finds what the careless do."""

import random
from pathlib import Path

import pytest
from jobs import Job
from kill import Attack, Tally

# Appends 0 to 39 to a file, a line every 10 ms, and writes another file at the end.
START = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
lines, end = folder / "lines", folder / "end"
done = len(lines.read_text().splitlines()) if lines.exists() else 0
"""
WORK = """
for number in range(done, 40):
    with lines.open("a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.01)
"""
END = """
temporary = folder / f".end.{os.getpid()}.tmp"
temporary.write_text("whole")
time.sleep(0.2)
temporary.replace(end)
"""
MEND = """
for leftover in folder.glob(".*.tmp"):
    leftover.unlink()
"""


def _attacked(program: str, moments: list[str], out: Path) -> Tally:
    def arguments(root: Path, stage_1: Path, kills: int) -> list[str]:
        return ["-c", program, str(root / "work")]

    def progress(folder: Path) -> int:
        return (folder / "lines").read_text().count("\n") if (folder / "lines").exists() else 0

    job = Job("program", arguments, "work", "end", progress, lines="lines")
    return Attack(job, 1, len(moments), random.Random(0), out / "attack", out).run(moments)


def test_a_careful_program_loses_nothing(tmp_path):
    tally = _attacked(START + MEND + WORK + END, ["work", "line", "start", "end"], tmp_path)
    assert tally.faults == []
    assert tally.kills == 4
    assert tally.torn >= 1
    assert max(tally.resumed_at) == 40


@pytest.mark.parametrize(
    ("program", "moments", "fault"),
    [
        (START + MEND + "done = 0" + WORK + END, ["work"], "lines differs"),
        (START + MEND + "done += done > 0" + WORK + END, ["work"], "lines differs"),
        (START + WORK + END, ["end"], "was left behind"),
        (START + "done and sys.exit('it is damaged')" + WORK + END, ["work"], "it is damaged"),
    ],
    ids=["doubles", "skips", "leaves", "fails"],
)
def test_a_careless_program_is_found(program: str, moments: list[str], fault: str, tmp_path):
    tally = _attacked(program, moments, tmp_path)
    assert any(fault in text for text in tally.faults), tally.faults
