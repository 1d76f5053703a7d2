"""How the file of a card is used and measured, as commands and code that work where it lies."""

import json
import shlex
from pathlib import Path

from gdd.formats import webdataset
from gdd.formats.export import SOFT_LABEL
from gdd.report.card.subject import Subject


def commands(subject: Subject) -> str:
    """Return lines for a shell, or nothing."""
    if subject.layout == "shards":
        return "gdd verify .  # in this folder"
    if subject.layout == "generator" and subject.name.isprintable():
        return f"gdd sample {shlex.quote(subject.name)} --ipc 10 --out samples.safetensors"
    return ""


def snippet(subject: Subject) -> str:
    """Return lines of Python, for the folder that the file, the exported folder, or the shards lie in."""
    name = json.dumps(subject.name)
    match subject.layout:
        case "generator":
            lines = [
                "import gdd",
                "",
                f"generator = gdd.load_generator({name})",
                "for images, labels in generator.stream(batch_size=64):  # new samples without end, float32 in [0, 1]",
                "    break",
            ]
        case "set":
            lines = [
                "import gdd",
                "from torch.utils.data import DataLoader",
                "",
                f"stored = gdd.load_set({name})",
                "for images, labels in DataLoader(stored, batch_size=64, shuffle=True):  # float32, black 0, white 1",
                "    break",
            ]
        case "shards":
            last = webdataset.path_of(Path(), subject.shards - 1).stem.removeprefix("shard-")
            lines = [
                "import webdataset",
                "",
                f'shards = webdataset.WebDataset("shard-{{000000..{last}}}.tar", shardshuffle=False)',
                'for image, label in shards.decode("pil").to_tuple("png", "cls"):',
                "    break",
            ]
        case "folder":
            lines = [
                "from torchvision.datasets import ImageFolder",
                "",
                f'image, label = ImageFolder({name} + "/train")[0]',
            ]
        case "hf":
            lines = [
                "from datasets import load_dataset",
                "",
                f'images = load_dataset({name}, split="train")  # this folder, or its name on the Hub',
            ]
    return "\n".join(lines)


def notes(subject: Subject) -> list[str]:
    """Return what else there is to know before it is used."""
    found = []
    if subject.layout in ("folder", "hf"):
        found.append("Images are PNG files of 8 bits per channel.")
        if subject.optimised:
            found.append(
                "Pixels that were optimised are rounded to the nearest of 256 levels and clipped to [0, 1]; the stored "
                "set from which this was exported holds them as they were."
            )
    if subject.soft:
        where = f"The column {SOFT_LABEL} holds" if subject.layout == "hf" else "It has soft labels:"
        found.append(f"{where} a logit for each class; softmax makes probabilities of them.")
    return found


def measure(subject: Subject) -> str:
    """Return the command that measures it; nothing of what gdd does not take as a source."""
    if subject.layout not in ("generator", "set") or not subject.name.isprintable():
        return ""
    words = ["gdd", "compare", shlex.quote(subject.name)]
    if not subject.provenance.get("config"):  # the settings of the data are in it
        spec = subject.spec
        data = spec.name if subject.is_known else "PATH_OF_THE_REAL_IMAGES"
        words += ["--data.name", data, "--data.size", f"'[{spec.height}, {spec.width}]'"]
    return " ".join(words)
