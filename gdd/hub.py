"""Results on the Hugging Face Hub, each by a name such as `hub:USER/NAME`, fetched and pushed; without torch.

A generator, with the teacher that lies beside it, has a model repository, `hub:USER/NAME`. A stored set has a dataset
repository, `hub:datasets/USER/NAME`. Either may end in @REVISION: a commit, a tag or a branch. huggingface_hub asks the
Hub and keeps what it has fetched; its settings (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN) are its own.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gdd import __version__, zoo
from gdd.config import ConfigError
from gdd.data.places import require_hf
from gdd.runtime.header import read_header

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

PREFIX = "hub:"
CARD = "README.md"  # of a repository
# The files of a repository that gdd reads, by its kind. Its own file comes first.
FILES = {"model": (zoo.FILE, zoo.TEACHER), "dataset": (zoo.SET,)}
_NAME = re.compile(r"hub:(datasets/)?(?!datasets/)([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_EXPECTED = "hub:USER/NAME of a generator or hub:datasets/USER/NAME of a stored set"


class Repository(NamedTuple):
    """What a name stands for."""

    kind: Literal["model", "dataset"]
    id: str  # USER/NAME
    revision: str | None  # commit, tag or branch; none: the newest commit


def parse_name(text: str) -> Repository:
    """Return the repository of hub:USER/NAME or hub:datasets/USER/NAME; ConfigError for any other text."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text} is no name on the Hub, expected {_EXPECTED}, perhaps with @REVISION")
    datasets, identifier, revision = match.groups()
    return Repository("dataset" if datasets else "model", identifier, revision)


def local_path(named: Path | str) -> Path:
    """Return the file of hub:USER/NAME, hub:datasets/USER/NAME or zoo:NAME; any other path as it is.

    Raises:
        ConfigError: there is none of the name, or it cannot be fetched.
    """
    text = str(named)
    return fetch(text) if text.startswith(PREFIX) else zoo.generator_path(named)


def revision_of(named: str) -> str | None:
    """Return the commit that a name on the Hub stands for; None for anything else. ConfigError as of `local_path`."""
    return fetch(named).parent.name if named.startswith(PREFIX) else None


@cache  # so that a name stands for one revision as long as a process runs
def fetch(text: str) -> Path:
    """Download what a name on the Hub stands for unless the cache has it, tell its checksums, and return its file.

    Of a repository nothing but `FILES` is asked for.

    Raises:
        ConfigError: there is no such repository or revision, it has no such file, the Hub cannot be reached, or
            huggingface_hub is missing.
    """
    kind, identifier, revision = parse_name(text)
    client, names = _client(text), FILES[kind]
    with _asking(text, f"is neither in the cache nor to be had from {client.endpoint}"):
        folder = client.snapshot_download(identifier, repo_type=kind, revision=revision, allow_patterns=list(names))
    files = [Path(folder, name) for name in names]
    if not files[0].is_file():
        raise ConfigError(
            f"{text}: revision {files[0].parent.name} has no {names[0]}, expected {_EXPECTED}; gdd reads no other "
            "file of a repository"
        )
    for file in filter(Path.is_file, files):
        logger.info(
            "%s is revision %s: %s, %s bytes, sha256 %s, hash %s",
            *(text, file.parent.name, file.name, f"{file.stat().st_size:,}", zoo.sha256(file), _stated_hash(file)),
        )
    return files[0]


def _stated_hash(file: Path) -> str:
    """Return the hash of gdd in a file's header, which loading compares with the content."""
    stated = str(read_header(file).get("hash"))
    if not re.fullmatch("[0-9a-f]{16}", stated):
        raise ConfigError(f"{file}: its header has no hash of 16 hex digits")
    return stated


def push(text: str, files: Mapping[str, Path], card: str, mark: str, message: str) -> str:
    """Upload files and their card to a repository in one commit, and return the commit's hash.

    The repository is made if there is none. Of `FILES`, it then holds those that are given alone.

    Args:
        text: hub:USER/NAME or hub:datasets/USER/NAME, without a revision.
        files: by their names in the repository.
        card: in Markdown, with its front matter.
        mark: text by which a card is gdd's; one in the repository without it stays as it is.
        message: of the commit.

    Raises:
        ConfigError: the Hub refuses it or cannot be reached, or huggingface_hub is missing.
    """
    kind, identifier, _ = parse_name(text)
    client = _client(text)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with _asking(text, f"cannot be pushed to {client.endpoint}"):
        client.create_repo(identifier, repo_type=kind, exist_ok=True)
        there = client.list_repo_files(identifier, repo_type=kind)
        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        if CARD in there and mark not in _read_card(client, kind, identifier):
            logger.info("%s of %s is kept: it is not gdd's", CARD, text)
        else:
            added.append(CommitOperationAdd(CARD, card.encode()))
        gone = [CommitOperationDelete(name) for name in FILES[kind] if name in there and name not in files]
        commit = client.create_commit(identifier, [*added, *gone], commit_message=message, repo_type=kind)
    return commit.oid


def _read_card(client: "HfApi", kind: str, identifier: str) -> str:
    path = client.hf_hub_download(identifier, CARD, repo_type=kind)
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _client(text: str) -> "HfApi":
    """Return what asks the Hub; ConfigError, which names what needs it, if huggingface_hub is missing."""
    require_hf("huggingface_hub", f"{text} needs huggingface_hub")
    from huggingface_hub import HfApi

    return HfApi(library_name="gdd", library_version=__version__)


@contextmanager
def _asking(text: str, failure: str) -> Iterator[None]:
    """Say in one sentence why the client could not do what the block asks of the Hub."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{text}: the repository has no such revision") from error
    except Exception as error:  # each major version of the client has another transport, with errors of its own
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
            closed = "there is no such repository, or it is not open to you (hf auth login)"
            raise ConfigError(f"{text} {failure}: {closed}") from error
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        raise ConfigError(f"{text} {failure} ({' '.join(str(cause or error).split())[:300]})") from error
