"""`gdd --print_completion`: what bash then offers, by the function that the script gives it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from commands import command_of

from gdd.cli.main import COMMANDS

# How bash asks for the last word of a line.
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_gdd "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, of a process of its own: jsonargparse spoils the parser that makes one."""
    path = tmp_path_factory.mktemp("completion") / "gdd"
    command = command_of("-m", "gdd", "--print_completion", "shtab-bash")
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["gdd", ""], set(COMMANDS)),
        (["gdd", "sam"], {"sample"}),
        (["gdd", "sample", "--ip"], {"--ipc"}),
        (["gdd", "distill", "--refine.tau"], {"--refine.tau", "--refine.tau_mode"}),
        (["gdd", "distill", "--method", ""], {"generator", "matching", "skd"}),
        (["gdd", "nothing"], set()),
    ],
)
def test_bash_offers_commands_flags_and_values(script, line, offered):
    ended = subprocess.run(["bash", "-c", ASK, "bash", script, *line], capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) == offered
