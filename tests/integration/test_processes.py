"""Two processes on CPUs: they start, share the work, and write everything once."""

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import TINY

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "-q"]


def test_two_processes_write_one_tree_and_each_row_once(tmp_path):
    command = [*LAUNCH, "--multi_gpu", "--num_processes", "2", "--main_process_port", "29655"]
    command += [str(ROOT / "distill.py"), *TINY, "--run.root", str(tmp_path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "digits"
    rows = [json.loads(line) for line in (folder / "evaluate/rows.jsonl").read_text().splitlines()]
    keys = [(row["source"], row["protocol"], row["arch"], row["seed"]) for row in rows]
    # Floor and ceiling are fixed; either stage is fixed and streamed; two seeds each.
    assert len(keys) == len(set(keys)) == 2 * (1 + 1 + 2 * 2)
    assert not list(folder.glob("evaluate/rows-*.jsonl"))
    assert done.stdout.count("all real") > 0
    assert len((folder / "pretrain/metrics.jsonl").read_text().splitlines()) == 3


def test_the_launcher_shows_a_mistake_in_one_sentence():
    command = [*LAUNCH, str(ROOT / "distill.py"), "--refine.tua", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "refine.tua" in done.stderr
    assert "Traceback" not in done.stderr
