"""What a row says about the machine and the program."""

import torch

from gdd.runtime import environment
from gdd.runtime.device import device_name


def test_facts_about_the_machine_are_known() -> None:
    assert environment.peak_memory_mb(torch.device("cpu")) > 10
    assert device_name(torch.device("cpu")).startswith("cpu")
    assert environment.versions()["torch"] == torch.__version__
    revision = environment.git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) == 40
