"""Results go to the Hub and come back to the bit, by its real client, and nothing else of a repository is fetched."""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ALONE, MATCHING, TINY
from generators import save_generator, save_teacher
from hub_server import TOKEN, Hub, serving

from gdd import hub, zoo
from gdd.api.generator import load_generator
from gdd.api.image_set import load_set
from gdd.config import ConfigError
from gdd.data import places
from gdd.evaluation import sources
from gdd.evaluation.grid import read_rows
from gdd.report import card
from gdd.sampling import generator_file, sample, set_file

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub, of the extra hf")

NOBODY = "http://127.0.0.1:9"  # answers
CLOSED = "there is no such repository, or it is not open to you (hf auth login)"
NAME, SET_NAME = "hub:me/pets", "hub:datasets/me/pets-2"


@pytest.fixture
def setting(monkeypatch):
    """Return a function that changes settings of the client, which has read its environment when it was imported."""
    from huggingface_hub import constants

    def change(**values: object) -> None:
        if "ENDPOINT" in values:
            values["HUGGINGFACE_CO_URL_TEMPLATE"] = (
                f"{values['ENDPOINT']}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            )
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        hub.fetch.cache_clear()  # as in a new process

    yield change
    hub.fetch.cache_clear()


@pytest.fixture
def server(tmp_path, monkeypatch, setting):
    """A Hub without repositories, which the client asks, with an empty cache."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])  # its own writes to an earlier test's end
    with serving() as served:
        cache = str(tmp_path / "cache")
        setting(ENDPOINT=served.url, HF_HUB_CACHE=cache, HF_HUB_DISABLE_XET=True, HF_HUB_OFFLINE=False)
        yield served


@pytest.fixture
def made(tmp_path) -> Path:
    """The folder of an untrained generator with a teacher beside it."""
    save_teacher(tmp_path / "made")
    return save_generator(tmp_path / "made", gain=3.0).parent


@pytest.fixture
def stored(made, tmp_path) -> Path:
    """The file of a set of its samples."""
    set_file.save(tmp_path / "pets-2.safetensors", sample.sample_set(generator_file.load(made), 2, seed=0))
    return tmp_path / "pets-2.safetensors"


@pytest.fixture
def pushed(done, server):
    """Return a function that pushes a source and gives the revision that it is told."""

    def push(source: object, to: str = NAME) -> str:
        told = done("push", source, "--to", to).splitlines()[-1]
        assert told.startswith(f"pushed: {to}@")
        hub.fetch.cache_clear()  # as in a new process
        return told.rpartition("@")[2]

    return push


def samples(named: object) -> torch.Tensor:
    return load_generator(str(named)).sample(2).stored.images


def files_of(server: Hub, place: str = "models/me/pets") -> dict[str, bytes]:
    return server.repositories[place][-1].files


@pytest.mark.parametrize("large", [(".safetensors",), ()], ids=["lfs", "regular"])
def test_a_generator_comes_back_to_the_bit_with_its_teacher(server, pushed, made, large):
    server.large = large
    revision = pushed(made)
    assert server.repositories["models/me/pets"][-1].oid == revision
    assert set(server.storage.files.values()) == {path.read_bytes() for path in made.glob("*") if large}
    back, here = load_generator(NAME), load_generator(made)
    assert back.loaded.hash == here.loaded.hash
    assert torch.equal(back.sample(3).stored.images, here.sample(3).stored.images)
    assert back.teacher is not None
    drawn = back.sample(3, soft_labels=True).soft_labels
    assert torch.equal(drawn, here.sample(3, soft_labels=True).soft_labels)
    assert server.fetched() == {zoo.FILE, zoo.TEACHER}


def test_a_set_comes_back_to_the_bit(server, pushed, done, stored, tmp_path):
    pushed(stored, SET_NAME)
    assert set(files_of(server, "datasets/me/pets-2")) == {".gitattributes", hub.CARD, zoo.SET}
    back, here = load_set(SET_NAME).stored, set_file.load(stored)
    assert back.hash == here.hash
    assert torch.equal(back.images, here.images)
    done("export", SET_NAME, "--to", "npz", "--out", tmp_path / "back.npz")
    done("export", stored, "--to", "npz", "--out", tmp_path / "here.npz")
    assert (tmp_path / "back.npz").read_bytes() == (tmp_path / "here.npz").read_bytes()


def test_what_is_pushed_is_told_with_its_bytes(server, done, made):
    lines = done("push", made, "--to", NAME).splitlines()
    content = {name: (made / name).read_bytes() for name in (zoo.FILE, zoo.TEACHER)}
    sums = {name: hashlib.sha256(one).hexdigest() for name, one in content.items()}
    assert lines[:2] == [f"{name}: {len(one):,} bytes, sha256 {sums[name]}" for name, one in content.items()]
    files = files_of(server)
    assert lines[2] == f"{hub.CARD}: {len(files[hub.CARD]):,} bytes"
    total = sum(len(one) for name, one in files.items() if name != ".gitattributes")
    assert lines[3] == f"pushing {total:,} bytes to {NAME}"
    assert server.repositories["models/me/pets"][-1].message == f"pets: generator {generator_file.load(made).hash}"


def test_what_is_fetched_is_told_with_its_checksums_once(server, pushed, made, caplog):
    revision = pushed(made)
    caplog.set_level(logging.INFO)
    samples(NAME)
    content = (made / zoo.FILE).read_bytes()
    facts = f"{len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}"
    line = f"{NAME} is revision {revision}: {zoo.FILE}, {facts}, hash {generator_file.load(made).hash}"
    assert [one for one in caplog.messages if zoo.FILE in one] == [line]  # and none of the client's transport


def test_a_pinned_revision_stays_and_a_name_goes_on(server, pushed, made, tmp_path):
    first = pushed(made)
    other = save_generator(tmp_path / "other", seed=1, gain=3.0).parent
    second = pushed(other)
    assert first != second
    assert zoo.TEACHER not in files_of(server)  # it was the first generator's
    assert torch.equal(samples(f"{NAME}@{first}"), samples(made))
    assert torch.equal(samples(NAME), samples(other))
    assert torch.equal(samples(f"{NAME}@{second}"), samples(other))
    assert load_generator(NAME).teacher is None
    assert load_generator(f"{NAME}@{first}").teacher is not None


def test_a_name_stands_for_one_revision_as_long_as_a_process_runs(server, pushed, done, made, tmp_path):
    pushed(made)
    before = samples(NAME)
    done("push", save_generator(tmp_path / "other", seed=1).parent, "--to", NAME)
    assert torch.equal(samples(NAME), before)


def test_the_same_result_is_no_new_revision(pushed, made):
    assert pushed(made) == pushed(made)


def test_the_cache_serves_where_there_is_no_network(server, pushed, refused, made, setting):
    revision, expected = pushed(made), samples(made)
    assert torch.equal(samples(NAME), expected)
    asked = len(server.asked)
    setting(HF_HUB_OFFLINE=True)
    for name in (NAME, f"{NAME}@{revision}"):
        assert torch.equal(samples(name), expected)
    refused(
        "sample", "hub:me/dogs", "--ipc", 1, "--out", "x", naming="hub:me/dogs is neither in the cache nor to be had"
    )
    assert len(server.asked) == asked
    setting(HF_HUB_OFFLINE=False, ENDPOINT=NOBODY)
    assert torch.equal(samples(NAME), expected)


def test_a_pickle_is_never_asked_for(server, refused):
    server.commit("models/me/pets", {"pytorch_model.bin": b"pickle", "generator.pkl": b"pickle", "README.md": b""})
    revision = server.commit("models/me/pets", {"a/generator.safetensors": b"", "teacher.safetensors.pt": b""})
    for oid in (None, *(commit.oid for commit in server.repositories["models/me/pets"])):
        name = NAME if oid is None else f"{NAME}@{oid}"
        line = refused("sample", name, "--ipc", 1, "--out", "x.safetensors")
        assert f"{name}: revision {oid or revision} has no {zoo.FILE}" in line
    assert server.fetched() == set()


def test_beside_a_result_nothing_else_is_fetched(server, pushed, made):
    pushed(made)
    files = {**files_of(server), "model.pkl": b"", "optimizer.pt": b"", "more.safetensors": b"", "a.json": b"{}"}
    server.commit("models/me/pets", files)
    samples(NAME)
    assert server.fetched() == {zoo.FILE, zoo.TEACHER}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is damaged or no .safetensors file"), (b"\2\0\0\0\0\0\0\0{}", "was not written by gdd")],
)
def test_a_file_that_is_none_of_gdds_is_refused(server, refused, content, reason):
    server.commit("models/me/pets", {zoo.FILE: content})
    refused("sample", NAME, "--ipc", 1, "--out", "x.safetensors", naming=reason)


def test_a_changed_file_is_refused(server, refused, made):
    content = bytearray((made / zoo.FILE).read_bytes())
    content[-1] ^= 1
    server.commit("models/me/pets", {zoo.FILE: bytes(content)})
    refused("sample", NAME, "--ipc", 1, "--out", "x.safetensors", naming="the weights do not match the hash")


def test_a_hash_that_is_none_is_not_told(server, refused, made):
    content = (made / zoo.FILE).read_bytes()
    stated = generator_file.load(made).hash.encode()
    server.commit("models/me/pets", {zoo.FILE: content.replace(stated, b"\\\\u001b[2J       ")})
    refused("sample", NAME, "--ipc", 1, "--out", "x.safetensors", naming="has no hash of 16 hex digits")


def test_its_name_is_a_source_and_a_start_and_rows_tell_its_revision(pushed, done, generator, tmp_path):
    revision, name = pushed(generator, "hub:me/digits"), "hub:me/digits"
    flags = [*TINY, "--run.root", tmp_path]
    done("compare", name, *flags, "--evaluate.seeds", "[0]", "--evaluate.protocols", "[fixed]")
    rows = {row.kind: row for row in read_rows(tmp_path / "compare/compare")}
    assert {kind: row.source_revision for kind, row in rows.items() if row.source_revision} == {"generator": revision}
    assert rows["generator"].source_hash == generator_file.load(generator).hash
    done("distill", *flags, *MATCHING, *ALONE, "--matching.init", "generator", "--matching.generator", name)


def test_a_set_and_a_teacher_on_the_hub_are_taken(pushed, done, made, stored, tmp_path):
    revision = pushed(stored, SET_NAME)
    pushed(made)
    source = sources.read(f"{SET_NAME}@{revision}")
    assert (source.kind, source.hash, source.revision) == ("set", set_file.load(stored).hash, revision)
    assert sources.read(f"{NAME},filter={NAME}").ensemble is not None
    done("sample", NAME, "--ipc", 2, "--soft-labels", "--out", tmp_path / "a.safetensors")
    done("sample", made, "--ipc", 2, "--soft-labels", "--out", tmp_path / "b.safetensors")
    assert set_file.load(tmp_path / "a.safetensors").hash == set_file.load(tmp_path / "b.safetensors").hash


WHERE_A_SOURCE_IS = (
    ["sample", NAME, "--ipc", 1, "--out", "x.safetensors"],
    ["compare", NAME],
    ["audit", NAME],
    ["landscape", NAME, "--arch", "mlp"],
    ["evaluate", "--evaluate.sources", f"[{NAME}]"],
    ["evaluate", "--evaluate.teacher", NAME],
    ["distill", *MATCHING, "--matching.init", "generator", "--matching.generator", NAME],
)


@pytest.mark.parametrize("command", WHERE_A_SOURCE_IS, ids=lambda command: " ".join(map(str, command[:2])))
def test_what_is_not_there_is_told_in_a_sentence(server, refused, made, command, monkeypatch, setting):
    refused(*command, naming=f"{NAME} is neither in the cache nor to be had from {server.url}: {CLOSED}")
    setting(ENDPOINT=NOBODY)
    refused(*command, naming=f"{NAME} is neither in the cache nor to be had from {NOBODY} (")
    monkeypatch.setattr(places, "find_spec", lambda _: None)
    refused(*command, naming=f"{NAME} needs huggingface_hub: pip install 'gdd[hf]'")


def test_a_revision_that_is_not_there_is_told(server, pushed, refused, made):
    pushed(made)
    for revision in ("v2", "0" * 40):
        name = f"{NAME}@{revision}"
        refused("compare", name, naming=f"{name}: the repository has no such revision")


@pytest.mark.parametrize(
    "name", ["hub:", "hub:pets", "hub:me/pets/x", "hub:datasets/pets", "hub:me/pets@", "hub:me/pe ts", "hub:../me/pets"]
)
def test_a_name_of_another_form_is_refused_without_asking(server, refused, made, name):
    expected = "expected hub:USER/NAME of a generator or hub:datasets/USER/NAME of a stored set"
    refused("compare", name, naming=f"{name} is no name on the Hub, {expected}")
    refused("push", made, "--to", name, naming=f"{name} is no name on the Hub, {expected}")
    assert server.asked == []


def test_what_cannot_be_pushed_is_refused_without_asking(server, refused, made, stored, done, tmp_path):
    done("export", stored, "--to", "npz", "--out", tmp_path / "a.npz")
    refused("push", made, "--to", SET_NAME, naming=f"--to is {SET_NAME} and {made} is a generator")
    refused("push", stored, "--to", NAME, naming=f"--to is {NAME} and {stored} is a set")
    refused("push", made, "--to", f"{NAME}@v1", naming="expected no @v1")
    for source in ("real:random", tmp_path / "a.npz", f"{made},filter={made}"):
        refused("push", source, "--to", NAME, naming=f"the source is {source}, expected a generator or a stored set")
    refused("push", tmp_path / "none", "--to", NAME, naming="does not exist")
    assert server.asked == []


def test_a_push_that_is_refused_or_unheard_is_told_in_a_sentence(server, refused, made, monkeypatch, setting):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    refused("push", made, "--to", NAME, naming=f"{NAME} cannot be pushed to {server.url}: {CLOSED}")
    assert server.repositories == {}
    setting(ENDPOINT=NOBODY)
    refused("push", made, "--to", NAME, naming=f"{NAME} cannot be pushed to {NOBODY} (")
    monkeypatch.setattr(places, "find_spec", lambda _: None)
    refused("push", made, "--to", NAME, naming=f"{NAME} needs huggingface_hub: pip install 'gdd[hf]'")


def test_a_card_that_is_not_gdds_stays(server, pushed, made, tmp_path):
    pushed(made)
    server.commit("models/me/pets", {**files_of(server), hub.CARD: b"mine"})
    pushed(save_generator(tmp_path / "other", seed=1).parent)
    assert files_of(server)[hub.CARD] == b"mine"


def test_the_card_is_that_of_the_name(server, pushed, made):
    pushed(made)
    assert files_of(server)[hub.CARD].decode() == card.hub_text(sources.read(str(made)), NAME)


def test_the_clients_own_settings_are_its_environment(server, pushed, made, tmp_path):
    """In a new process, as a user sets them: where the Hub and the cache are, and that nothing be asked."""
    revision = pushed(made)
    script = "import sys; from gdd import hub; print(hub.local_path(sys.argv[1])); assert 'torch' not in sys.modules"
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment.pop("HF_HUB_CACHE", None)

    def fetch(**more: str) -> Path:
        command = [sys.executable, "-c", script, NAME]
        ended = subprocess.run(command, capture_output=True, text=True, env={**environment, **more}, check=True)
        return Path(ended.stdout.strip())

    path = fetch()
    assert path == tmp_path / f"home/hub/models--me--pets/snapshots/{revision}" / zoo.FILE
    assert path.read_bytes() == (made / zoo.FILE).read_bytes()
    asked = len(server.asked)
    assert fetch(HF_HUB_OFFLINE="1") == path
    assert len(server.asked) == asked


def test_other_paths_are_what_they_were():
    assert hub.local_path("runs/digits") == Path("runs/digits")
    assert hub.local_path("zoo:digits") == zoo.generator_path("zoo:digits")
    assert hub.revision_of("zoo:digits") is None
    with pytest.raises(ConfigError, match="comes with gdd"):
        hub.local_path("zoo:pets")
