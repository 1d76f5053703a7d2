"""A command that can be killed with SIGKILL: all of its processes or one, at any moment or while it writes a file."""

import ctypes
import os
import random
import select
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100  # sys/inotify.h
_EVENT = struct.Struct("iIII")
_TOKEN = "GDD_VICTIM"
# A command that touches nothing for so long, or takes so long to end after one of its processes was killed, hangs.
STUCK, PATIENCE = 1800.0, 120.0
# What a start writes before it looks what there is to do.
CLAIMS = ("config.json", "settings.json", ".lock")


class Watch:
    """Names of a folder's files that are made, written to or renamed, told by the kernel within microseconds."""

    def __init__(self, folder: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        if self.libc.inotify_add_watch(self.descriptor, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))

    def read(self, seconds: float) -> list[str]:
        """Wait for something to happen, at most so long, and return the files' names."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return []
        content, names, start = os.read(self.descriptor, 65536), [], 0
        while start < len(content):
            length = _EVENT.unpack_from(content, start)[3]
            start += _EVENT.size + length
            names.append(content[start - length : start].rstrip(b"\0").decode())
        return names

    def close(self) -> None:
        os.close(self.descriptor)


class Killable:
    """A started command and all that it starts.

    Args:
        command: to run, with this environment on top of the present one.
        folder: where it writes; need not exist yet.
        log: file for what it prints.
    """

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.watch = Watch(folder) if folder.is_dir() else None
        # Workers of `accelerate launch` lead sessions of their own, so a process group would not hold them all.
        self.token = f"{_TOKEN}={uuid.uuid4().hex}".encode()
        self.began: float | None = None
        self.resumed: float | None = None
        self.started = self.refreshed = time.monotonic()
        variables = {**os.environ, **environment, _TOKEN: self.token.decode().partition("=")[2]}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=variables, start_new_session=True
            )
        self.known = [self.process.pid]

    def survives(self, until: Callable[[list[str]], bool], seconds: float = STUCK) -> bool:
        """Watch until `until` holds for the files just touched, or for so long; False if the command ended before."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            names = self._read(min(left, 0.05))
            if until(names):
                return True
            if self.process.poll() is not None:
                return False
        if seconds == STUCK:
            raise TimeoutError(f"nothing for {STUCK:.0f} s, see {self.log}")
        return True

    def begins(self) -> bool:
        """Wait until the command touches its folder; False if it ended before."""
        return self.survives(lambda _: self.began is not None)

    def _read(self, seconds: float) -> list[str]:
        if self.watch is None:
            if not self.folder.is_dir():
                time.sleep(min(seconds, 0.001))
                return []
            self.watch, self.began = Watch(self.folder), time.monotonic()
        names, now = self.watch.read(seconds), time.monotonic()
        if names and self.began is None:
            self.began = now
        if self.resumed is None and any(not any(claim in name for claim in CLAIMS) for name in names):
            self.resumed = now
        if now > self.refreshed + 0.5:
            self.known, self.refreshed = self.family(), now
        return names

    def family(self) -> list[int]:
        """Return the processes that the command consists of, by what they inherited."""
        return [
            int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and self.token in _environ(entry)
        ]

    def workers(self) -> list[int]:
        """Return the launcher's processes that do the work."""
        return [
            int(name)
            for name in map(str, self.family())
            if b"LOCAL_RANK=" in _environ(Path("/proc", name)) and _parent(name) == self.process.pid
        ]

    def kill(self) -> bool:
        """Kill all at once, as a power cut does, and wait until nothing is left; False if it had ended by itself."""
        for pid in self.known:  # those that can be named at once, before the others are looked for
            if self.token in _environ(Path("/proc", str(pid))):
                _kill(pid)
        while alive := self.family():
            for pid in alive:
                _kill(pid)
            time.sleep(0.002)
        return self.process.wait() == -signal.SIGKILL

    def kill_one(self, rng: random.Random) -> str | None:
        """Kill the launcher or one worker, and return what else did not end by itself, if anything.

        None if there was no worker yet or any more.
        """
        workers = self.workers()
        if not workers or self.process.poll() is not None:
            return None
        chosen = rng.choice([self.process.pid, *workers])
        _kill(chosen)
        deadline = time.monotonic() + PATIENCE
        while (left := [pid for pid in self.family() if pid != chosen]) and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.05)
        who = "launcher" if chosen == self.process.pid else "worker"
        return f"{len(left)} alive {PATIENCE:.0f} s after the {who} was killed" if left else ""

    def end(self) -> int:
        """Forget the command, which has ended, and return its exit code."""
        self.kill()
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        return self.process.returncode


def _environ(process: os.PathLike[str]) -> bytes:
    with suppress(OSError):  # it ended, or is somebody else's
        return Path(process, "environ").read_bytes()
    return b""


def _parent(pid: str) -> int:
    with suppress(OSError):
        return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
