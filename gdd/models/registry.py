"""Classifiers by name: a name means one network, and width, depth and norm show in it.

Names are read without torch, so that a misspelt one is refused at once; `build` imports what it builds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

from gdd.config import ConfigError, PoolKind, did_you_mean

if TYPE_CHECKING:
    from gdd.models.layers import Classifier, Shape

_ACTIVATIONS = ("relu", "sigmoid", "leakyrelu", "swish")
# What words and numbers in a name stand for.
WORDS = {
    "norm": {"bn": "batch", "in": "instance", "gn": "group", "ln": "layer", "nonorm": "none"},
    "activation": {name: name for name in _ACTIVATIONS},
    "pooling": {"max": "max", "avg": "avg", "nopool": "none"},
    "shortcut": {name: name for name in ("strided", "pooled")},
    "stem": {name: name for name in ("cifar", "imagenet")},
}
NUMBERS = {"width": "w", "depth": "d"}
SMALLEST_WIDTH = 4
TIMM = "timm:"  # before the names of timm's networks
# Of them alone: timm's own prefixes lead to the network or to folders.
_TIMM_NAME = re.compile(rf"{TIMM}[a-z0-9_]+(\.[a-z0-9_]+)?")
# Of the random ConvNets of Zhou et al. 2024, table 3, which have any of the activations.
_SIMILAR_NORMS = ("instance", "batch", "layer", "group")
_SIMILAR_POOLINGS = ("avg", "max")


@dataclass(frozen=True)
class Family:
    """How one registered name is built; the keys of `defaults` are the only arguments it takes."""

    build: "Callable[..., Classifier]"
    defaults: dict[str, Any]
    # convolutions before those that DropPath gives virtual shortcuts; none for networks that have no use for them
    stem: int | None = None


def _call(function: str, *arguments: Any, **options: Any) -> "Classifier":
    return getattr(import_module("gdd.models.classifiers"), function)(*arguments, **options)


def _resnet(blocks: tuple[int, int, int, int], bottleneck: bool = False) -> Family:
    defaults = {"norm": "instance", "width": 64, "activation": "relu", "shortcut": "strided", "stem": "cifar"}
    return Family(partial(_call, "resnet", blocks=blocks, bottleneck=bottleneck), defaults)


_CONVNET_DEFAULTS = {"norm": "instance", "width": 128, "depth": 3, "activation": "relu", "pooling": "avg"}
_CONVNET = Family(partial(_call, "convnet"), _CONVNET_DEFAULTS)
# Names, sizes and defaults of DatasetCondensation (utils.py get_network), ResNet10 and 34 by their pattern.
FAMILIES = {
    "mlp": Family(partial(_call, "mlp"), {"width": 128, "activation": "relu"}),
    "lenet": Family(partial(_call, "lenet"), {"width": 6, "activation": "relu"}),
    "alexnet": Family(partial(_call, "alexnet"), {"norm": "none", "width": 128, "activation": "relu"}, stem=1),
    "vgg11": Family(partial(_call, "vgg11"), {"norm": "instance", "width": 64, "activation": "relu"}, stem=2),
    "vit": Family(partial(_call, "vit"), {"width": 192, "depth": 12}),
    "convnet": _CONVNET,
    "convnet3": _CONVNET,
    "resnet10": _resnet((1, 1, 1, 1)),
    "resnet18": _resnet((2, 2, 2, 2)),
    "resnet34": _resnet((3, 4, 6, 3)),
    "resnet50": _resnet((3, 4, 6, 3), bottleneck=True),
}


@dataclass(frozen=True)
class Arch:
    """A classifier without its image shape and classes."""

    base: str  # a name of FAMILIES, or timm's; `convnet3` when the depth is 3, `convnet` for any other depth
    norm: str  # batch, instance, group, layer or none
    width: int | None  # channels (or units) of the first layer, to which others keep their proportion; None of timm's
    depth: int | None  # number of convolutions, of a vit its blocks; None where the base fixes it
    activation: str  # relu, sigmoid, leakyrelu or swish
    pooling: str | None  # max, avg or none; None where the base fixes it
    shortcut: str | None = None  # strided or pooled, of a ResNet
    stem: str | None = None  # cifar or imagenet, of a ResNet

    @property
    def name(self) -> str:
        """The row name: base, norm if the base can have one, width, and whatever is not the default."""
        defaults = _family(self.base).defaults
        parts = [self.base]
        for field, default in defaults.items():
            value = getattr(self, field)
            if value != default or field in ("norm", "width"):
                parts.append(_token(field, value))
        return "-".join(parts)


def _family(base: str) -> Family:
    if base.startswith(TIMM):
        return Family(partial(_of_timm, base.removeprefix(TIMM)), {})
    return FAMILIES[base]


def _of_timm(name: str, shape: "Shape", num_classes: int) -> "Classifier":
    build: Callable[..., Classifier] = import_module("gdd.models.from_timm").timm_classifier
    return build(name, shape, num_classes)


def is_pretrained(name: str) -> bool:
    """Tell whether a network, by its name, begins with weights that were learned from other images."""
    return "." in name and _TIMM_NAME.fullmatch(name) is not None


def pretrained_among(settings: Any) -> tuple[str, ...]:
    """Return the names of networks with such weights among texts, lists and dictionaries (JSON), each once."""
    if isinstance(settings, str):
        return (settings,) if is_pretrained(settings) else ()
    parts = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list | tuple) else ()
    return tuple(dict.fromkeys(name for part in parts for name in pretrained_among(part)))


def _token(field: str, value: str | int) -> str:
    if field in NUMBERS:
        return f"{NUMBERS[field]}{value}"
    return next(token for token, meaning in WORDS[field].items() if meaning == value)


def _allowed(family: Family) -> str:
    tokens = []
    for field in family.defaults:
        tokens += [f"{NUMBERS[field]}N"] if field in NUMBERS else list(WORDS[field])
    return ", ".join(tokens)


def _read(token: str) -> tuple[str, str | int] | None:
    """Return the field that a token sets and its value, or None for a token nobody knows."""
    for field, letter in NUMBERS.items():
        if re.fullmatch(rf"{letter}[0-9]+", token):
            return field, int(token[1:])
    for field, words in WORDS.items():
        if token in words:
            return field, words[token]
    return None


def parse(text: str) -> Arch:
    """Read a network's name, such as `convnet3`, `resnet18-bn-w16` or `convnet3-w32-gn-swish-max`.

    After the base, in any order: a norm (bn, in, gn, ln, nonorm), wN for the width, an activation (relu,
    sigmoid, leakyrelu, swish), for the convnet and the vit dN for the depth, for the convnet a pooling (max, avg,
    nopool), and for a ResNet how its shortcuts halve a map (strided, pooled) and how it begins (cifar, imagenet).

    timm's networks are `timm:NAME`, and with weights that it offers `timm:NAME.WEIGHTS`, such as `timm:resnet18` and
    `timm:resnet18.a1_in1k`; whether there is such a one, `build` tells.

    Raises:
        ConfigError: an unknown name or token, or one that this network cannot take.
    """
    if text.startswith(TIMM):
        if not _TIMM_NAME.fullmatch(text):
            raise ConfigError(f"unknown network {text!r}, expected {TIMM}NAME or {TIMM}NAME.WEIGHTS, in timm's words")
        return Arch(text, norm="none", width=None, depth=None, activation="relu", pooling=None)
    base, *tokens = text.split("-")
    if base not in FAMILIES:
        hint = did_you_mean(base, FAMILIES)
        raise ConfigError(f"unknown network {base!r}, expected one of {', '.join(FAMILIES)}, {TIMM}NAME{hint}")
    family = FAMILIES[base]
    chosen: dict[str, Any] = {}
    for token in tokens:
        known = _read(token)
        if known is None:
            raise ConfigError(f"unknown part {token!r} in network {text!r}: {base} takes {_allowed(family)}")
        field, value = known
        if field not in family.defaults:
            raise ConfigError(
                f"{base} takes no {field}, so {token!r} in {text!r} cannot hold: it takes {_allowed(family)}"
            )
        if field in chosen:
            raise ConfigError(f"network {text!r} sets its {field} twice")
        chosen[field] = value
    absent = {"norm": "none", "activation": "relu", "depth": None, "pooling": None, "shortcut": None, "stem": None}
    values = {**absent, **family.defaults, **chosen}
    if values["width"] < SMALLEST_WIDTH:
        raise ConfigError(f"network {text!r} has width {values['width']}, the smallest is {SMALLEST_WIDTH}")
    if values["depth"] == 0:
        raise ConfigError(f"network {text!r} has depth 0, the smallest is 1")
    # `convnet`, `convnet-d3` and `convnet3` are one network, so they get one name.
    if family is _CONVNET:
        base = "convnet3" if values["depth"] == 3 else "convnet"
    return Arch(base=base, **values)


def fresh_members(kind: PoolKind, main: str, various: tuple[str, ...], similar_depth: int) -> tuple[str, ...]:
    """Return the names of a pool of Zhou et al., the main model first.

    Raises:
        ConfigError: main+similar has a main model that is no convnet.
    """
    if kind == "main":
        return (main,)
    return (main, *(_similar(main, similar_depth) if kind == "main+similar" else various))


def _similar(main: str, depth: int) -> tuple[str, ...]:
    """Return every ConvNet of the main model's width that the random one can be; the main model may be among them.

    Those of a main model without pools have none either: of so deep ones, pools would leave no pixel.
    """
    arch = parse(main)
    if not arch.base.startswith("convnet"):
        raise ConfigError(f"matching.pool.main is {main!r}, expected a convnet with matching.pool.kind main+similar")
    base = "convnet3" if depth == 3 else "convnet"
    poolings = ("none",) if arch.pooling == "none" else _SIMILAR_POOLINGS
    return tuple(
        Arch(base, norm, arch.width, depth, activation, pooling).name
        for activation, norm, pooling in product(_ACTIVATIONS, _SIMILAR_NORMS, poolings)
    )


def build(arch: str | Arch, shape: "Shape", num_classes: int, drop_path: bool = False) -> "Classifier":
    """Build a freshly initialised classifier; wrap the call in `gdd.rng.seeded` to fix the initialisation.

    Args:
        arch: a name for `parse`, or its result.
        shape: (C, H, W) of the images.
        num_classes: outputs.
        drop_path: whether a single-branch network gets virtual shortcuts for its training; all else stays the same.

    Raises:
        ConfigError: the name is wrong, this network cannot work on such images or at such a width, or the weights that
            it is to begin with cannot be had, which the meta device does not ask for.
    """
    if isinstance(arch, str):
        arch = parse(arch)
    family = _family(arch.base)
    network = family.build(shape, num_classes, **{field: getattr(arch, field) for field in family.defaults})
    if drop_path and family.stem is not None:
        alternatives = import_module("gdd.models.layers").with_alternatives
        network.features = alternatives(network.features, family.stem)
    return network
