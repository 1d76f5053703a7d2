"""What a card is about: a generator, a stored set, shards, or a set in another format; its licence and its use."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gdd import hub, zoo
from gdd.config import earlier
from gdd.data.places import NAMES
from gdd.data.spec import DatasetSpec
from gdd.evaluation.sources import Source
from gdd.formats import webdataset
from gdd.formats.plain import SOFT_LABEL
from gdd.sampling import ensemble_file
from gdd.sampling.ensemble_file import Ensemble

Export = Literal["folder", "hf"]
Layout = Literal["generator", "set", "shards", Export]
UNKNOWN = "unknown"  # as the Hub calls it


class Licence(NamedTuple):
    """What is known of the licence of a dataset's images; where nothing is certain, that is said."""

    identifier: str  # as the Hub writes it in a card's front matter
    sentence: str  # what its makers say


LICENCES = {
    "digits": Licence(
        "cc-by-4.0",
        "CC BY 4.0, as the UCI Machine Learning Repository states for Optical Recognition of Handwritten Digits "
        "(E. Alpaydin and C. Kaynak, 1998), whose test part scikit-learn's digits are.",
    ),
    "mnist": Licence(
        UNKNOWN,
        "unknown: check the source's licence. Sources disagree: the documentation of Keras says CC BY-SA 3.0, with the "
        "copyright of Y. LeCun and C. Cortes, the dataset's card on the Hugging Face Hub says MIT.",
    ),
    "fashion_mnist": Licence("mit", "MIT, copyright of Zalando SE (H. Xiao, K. Rasul and R. Vollgraf, 2017)."),
    "cifar10": Licence(
        UNKNOWN,
        "unknown: check the source's licence. The home page of CIFAR-10 (A. Krizhevsky, 2009) names none; it asks to "
        "cite the technical report. The images are from 80 Million Tiny Images, which were collected on the web.",
    ),
    "cifar100": Licence(
        UNKNOWN,
        "unknown: check the source's licence. The home page of CIFAR-100 (A. Krizhevsky, 2009) names none; it asks to "
        "cite the technical report. The images are from 80 Million Tiny Images, which were collected on the web.",
    ),
    "tiny_imagenet": Licence(
        "other",
        "no named licence: the terms of ImageNet (O. Russakovsky et al., 2015), from which Tiny-ImageNet's images are, "
        "allow non-commercial research and education alone; the images belong to others.",
    ),
    "svhn": Licence(
        "other",
        "no named licence: the home page of SVHN (Y. Netzer et al., 2011) says for non-commercial use only; the images "
        "are from Google Street View.",
    ),
}


@dataclass(frozen=True)
class Subject:
    """What its file says, and what that is called."""

    layout: Layout
    name: str  # of its file or folder, without the folders above; or on the Hub, hub:USER/NAME
    spec: DatasetSpec  # the dataset that it stands for
    hash: str  # of the generator or the set; of shards, of their generator
    bytes: int  # of the generator's file, of all shards, or of a set's images and labels
    provenance: dict[str, Any]
    ipc: int | None = None  # images per class; none of a generator
    shards: int = 0  # how many
    soft: bool = False  # whether it holds soft labels
    teacher: Ensemble | None = None  # beside a generator
    optimised: bool = False  # whether its pixels were optimised, so that they may leave [0, 1], or are rounded here
    curation: Sequence[str] = ()  # how samples were chosen, in words

    @property
    def is_on_hub(self) -> bool:
        """Whether its card is that of a repository, which begins with what the Hub reads."""
        return self.layout == "hf" or self.name.startswith(hub.PREFIX)

    @property
    def is_real(self) -> bool:
        """Whether its images are real ones that were chosen."""
        return self.provenance.get("method") == "real images"

    @property
    def is_adopted(self) -> bool:
        """Whether another program has made its images, by what nobody knows."""
        return "imported_hash" in self.provenance

    @property
    def is_known(self) -> bool:
        """Whether it stands for a public dataset that gdd knows, by the name that the data were asked for with."""
        data = self.provenance.get("config", {}).get("data", {})
        return self.spec.name in NAMES and data.get("name", self.spec.name) in NAMES

    @property
    def licence(self) -> Licence:
        """That of the real images; unknown of a user's own dataset, even if it is named like a public one."""
        unknown = Licence(UNKNOWN, f"that of {self.spec.name}: fill in. gdd knows nothing of its licence.")
        return LICENCES.get(self.spec.name, unknown) if self.is_known else unknown


def of_source(source: Source, layout: Layout, name: str) -> Subject:
    """Describe a generator or a set whose file or folder has this name."""
    if source.generator is not None:
        made = source.generator
        beside = source.path.with_name(zoo.TEACHER) if source.path is not None else None
        teacher = ensemble_file.load(beside) if beside is not None and beside.is_file() else None
        return Subject(layout, name, made.spec, made.hash, made.bytes, made.provenance, teacher=teacher)
    assert source.synthetic is not None
    held = source.synthetic
    return Subject(
        layout,
        name,
        held.spec,
        held.hash,
        held.bytes,
        held.provenance,
        held.ipc,
        soft=held.soft_labels is not None and layout != "folder",
        optimised=held.images.is_floating_point(),
        curation=source.curation,
    )


def of_shards(folder: Path) -> Subject:
    """Describe a folder of whole shards; ConfigError if its manifest is damaged."""
    plan, values = webdataset.read_plan(folder / webdataset.MANIFEST)
    shards, origin = webdataset.totals(folder, plan), values.get("provenance")
    provenance = earlier.current_origin({**origin, "sample_seed": plan.seed}) if isinstance(origin, dict) else {}
    provenance.pop("config", None)  # nobody has checked it, and samples carry none
    # Not the folder's name: shards of one plan are the same wherever they lie, and so is their card.
    size, soft = shards.bytes, plan.teacher is not None
    return Subject("shards", "shards", plan.spec, plan.generator, size, provenance, plan.ipc, plan.shards, soft)


def commands(subject: Subject) -> str:
    """Return shell commands that use the file, if there are any."""
    if subject.layout == "shards":
        return "gdd verify .  # in this folder"
    if subject.layout == "generator" and subject.name.isprintable():
        return f"gdd sample {shlex.quote(subject.name)} --ipc 10 --out samples.safetensors"
    return ""


def snippet(subject: Subject) -> str:
    """Return Python code that loads the file, to be run in its folder."""
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
            last = webdataset.shard_path(Path(), subject.shards - 1).stem.removeprefix("shard-")
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


def usage_notes(subject: Subject) -> list[str]:
    """Return what a user must know of its pixels and labels."""
    notes = []
    if subject.layout in ("folder", "hf"):
        notes.append("Images are PNG files of 8 bits per channel.")
        if subject.optimised:
            notes.append(
                "Pixels that were optimised are rounded to the nearest of 256 levels and clipped to [0, 1]; the stored "
                "set from which this was exported holds them as they were."
            )
    if subject.soft:
        where = f"The column {SOFT_LABEL} holds" if subject.layout == "hf" else "It has soft labels:"
        notes.append(f"{where} a logit for each class; softmax makes probabilities of them.")
    if (teacher := subject.teacher) is not None:
        seen = teacher.provenance.get("validation_accuracy", {}).get("all")
        worth = "" if seen is None else f", and gets {seen} % of the validation images right"
        notes.append(
            f"Beside it lies {zoo.TEACHER} ({teacher.bytes / 1024:,.1f} KiB; {', '.join(teacher.archs)}), which was "
            f"trained on the real images themselves{worth}. It answers to samples with a logit for each class: "
            "`gdd sample --soft-labels`, `generator.stream(64, soft_labels=True)`, `--evaluate.teacher`."
        )
    return notes


def measure(subject: Subject) -> str:
    """Return the command that measures it; nothing if gdd cannot take it as a source."""
    if subject.layout not in ("generator", "set") or not subject.name.isprintable():
        return ""
    words = ["gdd", "compare", shlex.quote(subject.name)]
    if not subject.provenance.get("config"):  # the settings of the data are in it
        spec = subject.spec
        data = spec.name if subject.is_known else "PATH_OF_THE_REAL_IMAGES"
        words += ["--data.name", data, "--data.size", f"'[{spec.height}, {spec.width}]'"]
    return " ".join(words)
