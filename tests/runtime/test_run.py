"""The loop of a stage: where it goes on, what it does about damaged files, who may write to its folder."""

import ctypes
import errno
import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from checkpoints import files
from safetensors.torch import load_file

from gdd.config import ConfigError, RunConfig
from gdd.runtime import checkpoint, signals
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run

TOTAL = 6


class Walk:
    """A state whose every step depends on the one before."""

    def __init__(self) -> None:
        self.place = torch.zeros(1000)

    def step(self, index: int) -> None:
        self.place = self.place * 0.9 + torch.randn(1000, generator=torch.Generator().manual_seed(index))

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.place = state["place"]


@pytest.fixture
def walk(tmp_path):
    """Return a function that walks until a step and gives the place; it goes on where the last one ended."""
    accelerator = make_accelerator(RunConfig(threads=1))

    def call(until=None, keep=2, fixed_world_size=True, world_size=1) -> torch.Tensor:
        with Run(tmp_path / "run", RunConfig(save_every=1, keep=keep), {}, "fingerprint", accelerator) as run:
            state = Walk()
            run.world_size = world_size
            run.all_reduce_mean = lambda values: list(values)  # type: ignore[method-assign]
            for step in run.loop({"walk": state}, TOTAL, 1, "walk", fixed_world_size):
                state.step(step.index)
                if step.done == until:
                    break
            return state.place

    return call


@pytest.fixture
def whole() -> torch.Tensor:
    state = Walk()
    for index in range(TOTAL):
        state.step(index)
    return state.place


DAMAGES = {
    "flipped byte": lambda whole: whole[: (half := len(whole) // 2)] + bytes([whole[half] ^ 0xFF]) + whole[half + 1 :],
    "empty": lambda whole: b"",
    "text": lambda whole: b"this is no checkpoint",
    **{f"{tenth} tenths": lambda whole, tenth=tenth: whole[: len(whole) * tenth // 10] for tenth in range(1, 10)},
}


def damage(path: Path, how: str = "empty") -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


class TestDamage:
    @pytest.mark.parametrize("how", DAMAGES)
    def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(self, walk, whole, tmp_path, caplog, how):
        folder = tmp_path / "run"
        walk(until=4)
        assert checkpoint.steps(folder) == [2, 3]  # a step is saved when the next one begins
        newest = checkpoint.path_at(folder, 3)
        damage(newest, how)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(walk(), whole)
        assert newest.name in caplog.text
        assert "going on from the one before" in caplog.text
        assert f"{newest.name}.damaged" in files(folder)  # nothing is thrown away
        assert checkpoint.steps(folder) == [TOTAL - 1, TOTAL]

    def test_a_damaged_one_does_not_count_among_those_kept(self, walk, whole, tmp_path):
        walk(until=4, keep=2)
        damage(checkpoint.path_at(tmp_path / "run", 3))
        walk(until=4, keep=1)  # goes on after 2 and saves 3 anew, pruning all but one
        assert checkpoint.steps(tmp_path / "run") == [3]
        assert torch.equal(walk(), whole)

    def test_without_a_whole_one_the_run_is_refused(self, walk, tmp_path):
        walk(until=4)
        before = files(tmp_path / "run")
        for step in (2, 3):
            damage(checkpoint.path_at(tmp_path / "run", step))
        with pytest.raises(ConfigError, match=r"checkpoint-00000002\.pt is damaged .* there is no earlier one, remove"):
            walk()
        assert files(tmp_path / "run") == before

    def test_another_schema_is_refused_and_not_skipped(self, walk, tmp_path):
        walk(until=4)
        path = checkpoint.path_at(tmp_path / "run", 3)
        torch.save({**torch.load(path, weights_only=True), "schema": 1}, path)
        with pytest.raises(ConfigError, match="schema 1, this version reads 2"):
            walk()

    def test_a_signal_while_it_is_read_damages_nothing(self, walk, whole, tmp_path, monkeypatch):
        walk(until=4)
        load = torch.load

        def interrupted(*given: object, **named: object) -> object:
            signal.raise_signal(signal.SIGTERM)
            return load(*given, **named)

        monkeypatch.setattr(torch, "load", interrupted)
        with signals.on_signals(), pytest.raises(signals.Stopped, match="stopped after step 4 of 6"):
            walk()
        monkeypatch.setattr(torch, "load", load)
        assert checkpoint.steps(tmp_path / "run") == [3, 4]
        assert not list((tmp_path / "run").glob("*.damaged"))
        assert torch.equal(walk(), whole)

    @pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError("1 GiB")])
    def test_a_machine_that_fails_damages_nothing(self, walk, tmp_path, monkeypatch, error):
        walk(until=4)
        monkeypatch.setattr(torch, "load", Mock(side_effect=error))
        with pytest.raises(type(error)):
            walk()
        assert checkpoint.steps(tmp_path / "run") == [2, 3]


def _as_an_ordinary_user() -> None:
    """Root may write anywhere until it gives up the right to: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def _refused(command: list[str], before: Callable[[], None]) -> str:
    """Run the command, which must end with one sentence, after a call in its process; return the sentence."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # or a limit would cut modules that it compiles
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=before, check=False, env=environment)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    said = ended.stderr.strip().splitlines()[-1]
    assert len(said) < 300
    return said


class TestSpace:
    @pytest.mark.parametrize("how", ["torch", "system"])
    def test_a_full_disk_leaves_the_last_good_checkpoint(self, walk, whole, tmp_path, monkeypatch, how):
        walk(until=3)
        save = torch.save

        def full(content: object, path: Path) -> None:
            path.write_bytes(b"half")
            if how == "torch":
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch, "save", full)
        before = checkpoint.steps(tmp_path / "run")
        with pytest.raises(OSError, match=r"No space|the disk is full"):
            walk()
        monkeypatch.setattr(torch, "save", save)
        assert checkpoint.steps(tmp_path / "run") == before
        assert not list((tmp_path / "run").glob(".*.tmp"))
        assert torch.equal(walk(), whole)

    def test_a_limit_on_the_size_of_files_ends_in_a_sentence(self, tmp_path, tiny, done):
        """The kernel refuses every byte beyond the limit, as a full disk does."""
        command = [sys.executable, "-m", "gdd", "train-gan", *tiny]

        _refused(command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)))
        folder = tmp_path / "runs/digits/pretrain"
        assert checkpoint.steps(folder) == []
        assert not list(folder.glob(".*.tmp"))
        done("train-gan", *tiny)


class TestFolder:
    @pytest.mark.slow
    def test_a_folder_that_loses_its_permission_ends_in_a_sentence_and_nothing_is_lost(self, tmp_path, tiny, gdd):
        folder = tmp_path / "runs/digits/pretrain"
        flags = ["train-gan", *tiny]
        assert gdd(*flags, "--run.root", tmp_path / "undisturbed")[0] == 0
        # The folder is closed when the second of three checkpoints is due.
        close = "c.save = lambda at, step, *rest: (step == 4 and at.chmod(0o500), save(at, step, *rest))"
        script = f"import sys, gdd.runtime.checkpoint as c, gdd.cli; save = c.save; {close}; sys.exit(gdd.cli.main())"
        try:
            said = _refused([sys.executable, "-c", script, *flags], _as_an_ordinary_user)
            assert "checkpoint-00000004.pt cannot be used (writing failed: open file failed" in said
            assert checkpoint.steps(folder) == [2]
            said = _refused([sys.executable, "-m", "gdd", *flags], _as_an_ordinary_user)
            assert f"{folder} cannot be written to (Permission denied); set run.root" in said
        finally:
            folder.chmod(0o700)
        assert gdd(*flags)[0] == 0
        roots = (tmp_path / "undisturbed", tmp_path / "runs")
        first, second = (load_file(root / "digits/pretrain/generator.safetensors") for root in roots)
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_leftovers_of_a_killed_writer_are_removed(self, walk, tmp_path):
        walk(until=3)
        (tmp_path / "run/.checkpoint-00000003.pt.4711.tmp").write_bytes(b"half")
        walk(until=3)
        assert not list((tmp_path / "run").glob(".*.tmp"))

    def test_another_process_cannot_write_to_it_meanwhile(self, tmp_path, tiny, done, refused):
        folder = tmp_path / "runs/digits/pretrain"
        folder.mkdir(parents=True)
        hold = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
        holder = subprocess.Popen(
            [sys.executable, "-c", hold, folder / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        refused("train-gan", *tiny, naming="is in use by another process")
        holder.communicate(b"\n")
        done("train-gan", *tiny)

    def test_a_run_holds_its_folder_until_it_is_closed_or_refused(self, tmp_path):
        def open_run(fingerprint: str) -> Run:
            return Run(tmp_path / "run", RunConfig(), {}, fingerprint, make_accelerator(RunConfig(threads=1)))

        with open_run("first"):
            assert (tmp_path / "run/.lock").exists()
            with pytest.raises(ConfigError, match="is in use by another process"):
                open_run("first")
        with pytest.raises(ConfigError, match="another configuration") as refused:  # kept alive, as in a notebook
            open_run("second")
        with open_run("first"):
            assert refused.tb is not None

    @pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
    def test_a_file_system_that_cannot_lock_gives_a_warning(self, walk, whole, monkeypatch, caplog, reason):
        monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(reason, os.strerror(reason))))
        with caplog.at_level(logging.WARNING):
            assert torch.equal(walk(), whole)
        assert f"run cannot be locked ({os.strerror(reason)}); let no other process write to it" in caplog.text

    def test_overwriting_that_is_cut_short_leaves_nothing_to_be_taken_for_the_new_run(
        self, pretrained, done, gdd, refused, tiny, monkeypatch
    ):
        unlink, removed = Path.unlink, []

        def power_cut(path: Path, *given: object, **named: object) -> None:
            unlink(path, *given, **named)
            removed.append(path.name)
            if len(removed) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(Path, "unlink", power_cut)
        other = [*tiny, "--seed", "1"]
        assert gdd("train-gan", *other, "--run.overwrite", "true")[0] == 130
        monkeypatch.setattr(Path, "unlink", unlink)
        refused("train-gan", *other, naming="holds a run of another configuration")
        done("train-gan", *other, "--run.overwrite", "true")

    def test_results_without_their_configuration_are_refused(self, pretrained, refused, tiny):
        (pretrained / "config.json").unlink()
        refused("train-gan", *tiny, naming="holds results but no config.json")

    def test_a_folder_that_a_process_cannot_see_is_refused(self, tmp_path, monkeypatch):
        accelerator = make_accelerator(RunConfig(threads=1))
        monkeypatch.setattr(type(accelerator), "is_main_process", property(lambda _: False))
        with pytest.raises(ConfigError, match=r"is not seen by all processes; set run\.root"):
            Run(tmp_path / "elsewhere", RunConfig(), {}, "fingerprint", accelerator)


def test_another_number_of_processes_does_not_go_on_unless_it_makes_no_difference(walk, whole):
    walk(until=3)
    with pytest.raises(ConfigError, match="processes was 1 and is now 2; go on as it began"):
        walk(world_size=2)
    assert torch.equal(walk(world_size=2, fixed_world_size=False), whole)
