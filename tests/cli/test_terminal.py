"""A terminal, or a locale, that has not all characters: what it cannot show is replaced, and nothing stops for it."""

import io
import os
import subprocess
import sys

import pytest

from gdd.cli import main


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    assert main(["zoo"]) == 0
    sys.stdout.flush()
    said = written.getvalue().decode(encoding)
    assert (" ± " if encoding != "ascii" else " ? ") in said


def test_a_table_is_written_in_utf_8_whatever_the_locale(distilled):
    """As on a machine whose locale is ASCII, and that is told not to take UTF-8 for it."""
    run = distilled[0]
    (run / "evaluate/table.md").unlink()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", "from gdd.cli import script; script()", "report", str(run / "evaluate")]
    ended = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr.decode()
    assert "−" in (run / "evaluate/table.md").read_text(encoding="utf-8")
