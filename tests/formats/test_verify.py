"""`gdd verify`: finished shards pass; damage and hostile files get a sentence, and nothing is ever unpacked."""

import copy
import hashlib
import io
import json
import os
import tarfile
import tracemalloc

import pytest
from generators import PETS as SPEC
from PIL import Image

from gdd.config import ConfigError, read_as
from gdd.formats.webdataset import _png_start, verify

KEY = "00001-00000000"  # the second sample of shard 0


@pytest.fixture
def folder(draw):
    return draw("out")


def forge(folder, change, shard=0):
    """Rewrite a shard's members as `change` says, with a manifest that agrees."""
    path = folder / f"shard-{shard:06d}.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    content = b"".join(
        (info if isinstance(info, bytes) else as_gdd(info)) + data + bytes(-len(data) % 512)
        for info, data in change(members)
    )
    replace(path, content + bytes(1024))


def as_gdd(info):
    """Return a header that differs from those of gdd only in what `info` says: tarfile leaves the device empty."""
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[329:345] = b"0000000\0" * 2 if info.devmajor == 0 else header[329:345]
    return with_checksum(header)


def with_checksum(header):
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def replace(path, content):
    path.write_bytes(content)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    (entry,) = [entry for entry in manifest["shards"] if entry["name"] == path.name]
    entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_a_forgery_that_changes_nothing_passes(folder):
    before = (folder / "shard-000000.tar").read_bytes()
    forge(folder, lambda members: members)
    assert (folder / "shard-000000.tar").read_bytes() == before
    assert verify(folder)[1] == (3, 21, sum(path.stat().st_size for path in folder.glob("*.tar")))


def test_every_flipped_byte_is_found(folder):
    path = folder / "shard-000000.tar"
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ConfigError, match=r"shard-000000\.tar"):
            verify(folder)
    path.write_bytes(content)
    verify(folder)


def test_a_missing_or_cut_shard_is_found(folder, refused):
    path = folder / "shard-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:-512])
    assert f"has {len(content) - 512} bytes, its manifest says {len(content)}" in refused("verify", folder)
    for stop in (0, 100, 512, 700, 1024, len(content) - 1024, len(content) - 512, len(content) - 1):
        replace(path, content[:stop])
        assert "shard-000001.tar" in refused("verify", folder)
    path.unlink()
    assert "shard-000001.tar is missing" in refused("verify", folder)
    for make in (os.mkdir, os.mkfifo):
        make(path)
        assert "shard-000001.tar is missing or no file" in refused("verify", folder)
        path.rmdir() if path.is_dir() else path.unlink()


def with_facts(data=None, **facts):
    def change(info, given):
        info = copy.copy(info)
        for name, value in facts.items():
            setattr(info, name, value)
        return info, given if data is None else data

    return change


def of_type(kind, target=""):
    return with_facts(b"", type=kind, linkname=target, size=0)


def with_data(make):
    def change(info, data):
        data = make(data)
        info.size = len(data)
        return info, data

    return change


def claiming(size):
    """Change the size that a header claims, in GNU's binary notation where octal digits do not suffice."""

    def change(info, data):
        info.size = size
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[257:265] = b"ustar\x0000"
        return with_checksum(header), data

    return change


def png(size, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, format="PNG")
    return file.getvalue()


IMAGES = {
    "parent": (with_facts(name="../evil.png"), "has '../evil.png' of"),
    "absolute": (with_facts(name="/etc/evil.png"), "'/etc/evil.png'"),
    "below": (with_facts(name=f"./{KEY}.png"), f"'./{KEY}.png'"),
    "other class": (with_facts(name="00002-00000000.png"), "'00002-00000000.png'"),
    "bytes of no text": (with_facts(name="\udcff"), "'\\udcff'"),
    **{
        kind: (of_type(getattr(tarfile, kind), target), f"where {KEY}.png was expected, a plain file of")
        for kind, target in (
            *(("SYMTYPE", "/etc/passwd"), ("LNKTYPE", "../x"), ("CHRTYPE", ""), ("FIFOTYPE", ""), ("DIRTYPE", "")),
            *(("GNUTYPE_SPARSE", ""), ("XHDTYPE", "")),
        )
    },
    **{
        name: (with_facts(**{name: value}), "with the owner, time and mode that gdd writes")
        for name, value in {"mode": 0o4755, "uid": 1, "uname": "root", "mtime": 1, "linkname": "x"}.items()
    },
    "terabyte": (claiming(2**40), f"with {2**40} bytes where {KEY}.png was expected, a plain file of 33 to"),
    "octal gigabytes": (claiming(2**33 - 1), f"with {2**33 - 1} bytes where"),
    "below zero": (claiming(-1), "with -1 bytes where"),
    "empty": (with_data(lambda _: b""), "with 0 bytes where"),
    "wider": (with_data(lambda _: png((25, 16))), f"{KEY}.png does not begin like"),
    "turned": (with_data(lambda _: png((16, 24))), f"{KEY}.png does not begin like"),
    "huge": (with_data(lambda data: data[:16] + b"\x7f\xff\xff\xff" * 2 + data[24:]), f"{KEY}.png does not begin"),
    "grey": (with_data(lambda _: png((24, 16), "L")), f"{KEY}.png does not begin like"),
    "palette": (with_data(lambda _: png((24, 16), "P")), f"{KEY}.png does not begin like"),
    "no png": (with_data(lambda data: b"GIF89a" + data[6:]), f"{KEY}.png does not begin like"),
    "long": (with_data(lambda data: data + bytes(5000)), f"bytes where {KEY}.png was expected"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_a_member_that_is_no_image_of_the_plan_is_refused(case, folder, refused):
    change, expected = IMAGES[case]
    forge(folder, lambda members: [*members[:2], change(*members[2]), *members[3:]])
    before = sorted(folder.parent.rglob("*"))
    line = refused("verify", folder)
    assert "shard-000000.tar" in line
    assert expected in line
    assert sorted(folder.parent.rglob("*")) == before  # nothing was unpacked


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: [*m, with_facts(name="../evil.png")(*m[-2])], "does not end where its last member does"),
        (lambda m: [*m, m[-1]], "does not end where its last member does"),
        (lambda m: [*m[:2], *m[:2], *m[4:]], "has '00000-00000000.png' of"),
        (lambda m: [*m[2:4], *m[:2], *m[4:]], "has '00001-00000000.png' of"),
        (lambda m: m[:-1], "no member where 00001-00000002.cls was expected (end of file header)"),
        (lambda m: [], "no member where 00000-00000000.png"),
        (lambda m: [m[0], with_data(lambda _: b"1")(*m[1]), *m[2:]], "00000-00000000.cls does not begin"),
        (lambda m: [m[0], with_data(lambda _: b"00")(*m[1]), *m[2:]], "with 2 bytes where 00000-00000000.cls"),
        (lambda m: [*m[:-1], (as_gdd(m[-1][0]), m[-1][1] + b"x")], "cut or changed after 00001-00000002.cls"),
        (lambda m: [*m, (bytes(512), b"")], "does not end where its last member does"),
    ],
)
def test_members_that_are_not_those_of_the_plan_are_refused(change, expected, folder, refused):
    forge(folder, change)
    assert expected in refused("verify", folder)


def test_no_tar_is_refused(folder, refused):
    content = (folder / "shard-000000.tar").read_bytes()
    for other in (b"\x1f\x8b" + content, b"x" * 5000, b"\xff" * 5000):
        replace(folder / "shard-000000.tar", other)
        assert "no member where 00000-00000000.png was expected" in refused("verify", folder)


def test_the_header_of_an_image_is_pillows(folder):
    assert png((24, 16)).startswith(_png_start(SPEC))


def test_memory_does_not_grow_with_what_a_file_claims(folder):
    """A spec of 4096 x 4096 pixels allows members of 100 MB, which are hashed in small pieces."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["spec"].update(height=4096, width=4096)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    spec = read_as(type(SPEC), manifest["spec"])

    def enlarge(members):
        data = _png_start(spec) + bytes(50 * 2**20)
        members[0][0].size = len(data)
        return [(members[0][0], data), *members[1:]]

    forge(folder, enlarge)
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"00001-00000000\.png does not begin"):  # the first one passes
        verify(folder)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def changed(**values):
    return lambda manifest: json.dumps({**manifest, **values})


def entry(**values):
    def change(manifest):
        manifest["shards"][1].update(values)
        return json.dumps(manifest)

    return change


def spec(**values):
    return lambda manifest: json.dumps({**manifest, "spec": {**manifest["spec"], **values}})


MANIFESTS = {
    "no JSON": lambda _: "{",
    "no text": lambda _: "\ud800",
    "a list": lambda _: "[]",
    "null": lambda _: "null",
    "deep": lambda _: "[" * 100_000,
    "empty": lambda _: "{}",
    "long number": lambda _: '{"format": ' + "9" * 5000 + "}",
    "another format": changed(format=2),
    "seed of text": changed(seed="0"),
    "ipc of text": changed(ipc="7"),
    "ipc too large": changed(ipc=10**9),
    "ipc infinite": changed(ipc=float("inf")),
    "ipc another": changed(ipc=8),
    "a million shards": changed(ipc=10**6, shard_size=3),
    "shard size 0": changed(shard_size=0),
    "shard size another": changed(shard_size=9),
    "no spec": changed(spec=None),
    "spec of text": changed(spec="pets"),
    "spec without classes": spec(class_names=[]),
    "spec of a number": spec(class_names=3),
    "spec of height text": spec(height="16"),
    "spec of height 0": spec(height=0),
    "spec of two channels": spec(channels=2),
    "shards a mapping": changed(shards={}),
    "shards null": changed(shards=None),
    "shards of numbers": changed(shards=[1, 2, 3]),
    "too few shards": lambda manifest: json.dumps({**manifest, "shards": manifest["shards"][:2]}),
    "too many shards": lambda manifest: json.dumps({**manifest, "shards": manifest["shards"] * 2}),
    "a shard twice": lambda manifest: json.dumps({**manifest, "shards": manifest["shards"][:1] * 3}),
    "path": entry(name="../shard-000001.tar"),
    "absolute path": entry(name="/etc/passwd"),
    "name of a number": entry(name=1),
    "samples": entry(samples=9),
    "bytes of text": entry(bytes="1"),
    "bytes null": entry(bytes=None),
    "checksum of another": entry(sha256="0" * 64),
    "checksum a list": entry(sha256=[]),
    "more facts": entry(more=1),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_hostile_manifest_is_refused(case, folder, refused):
    path = folder / "manifest.json"
    text = MANIFESTS[case](json.loads(path.read_text()))
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    line = refused("verify", folder)
    assert "manifest" in line
    assert len(line) < 500


def test_what_is_no_folder_of_shards_is_refused(refused, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "has no manifest.json; a folder written by gdd sample" in refused("verify", path)
    (tmp_path / "settings.json").write_text("{}")
    assert "settings.json: format is null, expected 1" in refused("verify", tmp_path)
