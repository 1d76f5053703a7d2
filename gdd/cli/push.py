"""`gdd push`: a generator or a set to the Hugging Face Hub."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from gdd import hub, zoo
from gdd.cli.command import Command
from gdd.config import ConfigError
from gdd.evaluation.named import source_path


def _add_push_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="run folder, file of a generator or a stored set, or zoo:NAME")
    to = "hub:USER/NAME for a generator, hub:datasets/USER/NAME for a stored set; made, public, if there is none"
    parser.add_argument("--to", type=str, required=True, help=to)


def _push(options: Namespace, console: Console) -> None:
    kind, _, revision = hub.parse_name(options.to)
    if revision is not None:
        raise ConfigError(f"--to is {options.to}, expected no @{revision}: each push makes a revision of its own")
    source_path(options.source)  # before torch is imported
    from gdd.evaluation import sources
    from gdd.report import card

    source = sources.read(options.source)
    made = source.generator or source.synthetic
    if made is None or source.path is None or source.path.suffix != ".safetensors" or source.ensemble is not None:
        raise ConfigError(f"the source is {options.source}, expected a generator or a stored set, a .safetensors file")
    if (source.kind == "generator") != (kind == "model"):
        raise ConfigError(
            f"--to is {options.to} and {options.source} is a {source.kind}, expected {hub.PREFIX}USER/NAME for a "
            f"generator, {hub.PREFIX}datasets/USER/NAME for a set"
        )
    first, *beside = hub.FILES[kind]
    files = {first: source.path} | {name: source.path.with_name(name) for name in beside}
    files = {name: path for name, path in files.items() if path.is_file()}
    content = card.hub_text(source, options.to)
    sizes = {name: path.stat().st_size for name, path in files.items()} | {hub.CARD: len(content.encode())}
    for name, size in sizes.items():
        checksum = f", sha256 {zoo.sha256(files[name])}" if name in files else ""
        console.print(f"{name}: {size:,} bytes{checksum}", soft_wrap=True)
    console.print(f"pushing {sum(sizes.values()):,} bytes to {options.to}", soft_wrap=True)
    message = f"{made.spec.name}: {source.kind} {made.hash}"
    commit = hub.push(options.to, files, content, card.MARK, message)
    console.print(f"pushed: {options.to}@{commit}", soft_wrap=True)


COMMANDS = (Command("push", "upload a generator or a set to the Hugging Face Hub", _add_push_arguments, _push),)
