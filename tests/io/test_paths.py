"""Where files come from and where they are kept."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from misbehaving_server import Site, whole
from permissions import permissions_count

from lavis_lite.config import files
from lavis_lite.data.files import tables
from lavis_lite.data.files.class_folders import ClassFolders
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io import download, object_store, paths
from lavis_lite.io.download import LOCKS, cache_name, fetch
from lavis_lite.io.paths import cache_dir, local_path, offline, path_manager
from lavis_lite.io.transfer import Limits
from lavis_lite.modules.text.hub_files import locate
from lavis_lite.registry.plugins import load_plugin
from lavis_lite.runners.run_folder import RunFolder

OFFLINE = ["LAVIS_LITE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
SHA_OF_ABCD = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
SHA_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    paths._temporary_cache.cache_clear()
    return tmp_path / "cache"


def test_importing_it_needs_no_torch_and_sets_nothing():
    code = (
        "import os; before = dict(os.environ); import sys, lavis_lite.io;"
        "assert dict(os.environ) == before; print(sorted({'torch', 'transformers', "
        "'huggingface_hub', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ---- paths and URLs


def test_a_path_is_itself_and_checked_if_asked(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"abc")
    assert local_path(file) == str(file)
    assert local_path("~/x.pth") == os.path.expanduser("~/x.pth")
    assert local_path(tmp_path / "missing") == str(tmp_path / "missing")
    assert local_path(file, sha256=SHA_OF_ABC) == str(file)
    with pytest.raises(DownloadError, match=rf"sha256 is {SHA_OF_ABC}, wanted 0+"):
        local_path(file, sha256="0" * 64)
    with pytest.raises(DownloadError, match="No such file"):
        local_path(tmp_path / "missing", sha256=SHA_OF_ABC)
    with pytest.raises(DownloadError, match="'12' is not a sha256"):
        local_path(file, sha256="12")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://h/x", "HTTP://h/x", "zip://a"])
@pytest.mark.parametrize(
    "use",
    [local_path, paths.open, path_manager.exists, path_manager.ls],
    ids=lambda use: use.__name__,
)
def test_an_unknown_scheme_is_named_with_the_known_ones(use, address):
    with pytest.raises(DownloadError, match=r": nothing here reads \w+://; known: .*hf://, s3://"):
        use(address)


def test_local_files_open_through_the_path_manager(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with paths.open("~/a.txt", "w", encoding="utf-8") as file:
        file.write("é")
    with paths.open(tmp_path / "a.txt", encoding="utf-8") as file:
        assert file.read() == "é"
    assert path_manager.ls("~") == ["a.txt"]
    assert path_manager.isfile("~/a.txt")


def test_what_must_lie_on_this_machine_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.here("~/out") == str(tmp_path / "out")
    with pytest.raises(ConfigError, match="s3://b/out: a path on this machine is needed"):
        paths.here("s3://b/out")


# ---- objects of stores


@pytest.fixture
def store():
    """A bucket in this process's memory, empty in the end."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def test_an_object_is_fetched_once_and_checked(store, own_cache):
    address = "memory://bucket/deep/a.txt"
    store.pipe(address, b"abc")
    assert Path(local_path(address)) == own_cache / cache_name(address)
    store.pipe(address, b"abcd")
    assert Path(local_path(address, SHA_OF_ABC)).read_bytes() == b"abc"
    with paths.open(address) as file:
        assert file.read() == "abc"
    with pytest.raises(DownloadError, match=rf"wanted sha256 0+, got {SHA_OF_ABCD}"):
        local_path(address, "0" * 64)


def test_an_object_that_is_not_there_is_told_at_once(store, own_cache):
    store.pipe("memory://bucket/a", b"abc")
    with pytest.raises(DownloadError, match=r"memory://bucket/b: no such object"):
        local_path("memory://bucket/b")
    assert not path_manager.exists("memory://bucket/b")
    assert path_manager.exists("memory://bucket/a")


def test_an_object_has_a_limit_of_size(store, tmp_path):
    store.pipe("memory://bucket/a", b"abc")
    with pytest.raises(DownloadError, match="larger than 2 bytes"):
        fetch(
            "memory://bucket/a",
            tmp_path,
            limits=Limits(max_bytes=2),
            receive=object_store.receive,
        )
    assert [path.name for path in tmp_path.iterdir()] == [LOCKS]


def test_a_store_that_fails_is_asked_again(store, monkeypatch, caplog):
    store.pipe("memory://bucket/a", b"abc")
    real, asked = type(store).open, []

    def weak(self, *given, **how):
        asked.append(given)
        if len(asked) < 3:
            raise RuntimeError("slow down")
        return real(self, *given, **how)

    monkeypatch.setattr(type(store), "open", weak)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    assert Path(local_path("memory://bucket/a")).read_bytes() == b"abc"
    assert "RuntimeError: slow down; try 3 of 3" in caplog.text


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_the_package_that_reads_a_store_is_named(monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(DownloadError, match=rf"read by the package {package}.*pip install"):
        local_path(f"{scheme}://bucket/key")


def test_every_store_is_one_that_fsspec_knows():
    assert set(object_store.STORES) <= set(fsspec.available_protocols())


def test_an_object_is_not_fetched_offline(store, monkeypatch):
    store.pipe("memory://bucket/a", b"abc")
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="network is switched off"):
        local_path("memory://bucket/a")


# ---- what users name


def test_configs_annotations_and_tokenizers_are_read_from_a_store(store, tmp_path):
    store.pipe("memory://bucket/base.yaml", b"model: {name: x}\n")
    (tmp_path / "own.yaml").write_text("_base_: memory://bucket/base.yaml\nrun: {seed: 1}\n")
    assert files.read(tmp_path / "own.yaml").tree == {"model": {"name": "x"}, "run": {"seed": 1}}
    store.pipe("memory://bucket/rows.jsonl", b'{"a": 1}\n')
    assert list(tables.read("memory://bucket/rows.jsonl", "jsonl")) == [{"a": 1}]
    store.pipe("memory://bucket/vocab.txt", b"[PAD]\n[UNK]\n")
    found = locate("memory://bucket/vocab.txt", ("vocab.txt",), "tokenizer")
    assert found.read_bytes() == b"[PAD]\n[UNK]\n"


def test_code_folders_and_outputs_are_not_fetched():
    for use in (load_plugin, RunFolder, ClassFolders):
        with pytest.raises(ConfigError, match="a path on this machine is needed"):
            use("memory://bucket/own.py")


def test_a_url_lands_in_the_cache_and_opens_through_the_path_manager(own_cache):
    with Site(whole(b"abc\n")) as site:
        url = site.url("a.txt")
        assert Path(local_path(url)) == own_cache / cache_name(url)
        assert path_manager.get_local_path(url) == local_path(url)
        with path_manager.open(url) as file:
            assert file.read() == "abc\n"
        assert path_manager.isfile(url)
        assert path_manager.exists(url)
        assert not path_manager.isdir(url)
        with pytest.raises(DownloadError, match="can only be read"):
            path_manager.open(url, "w")
    assert len(site.requests) == 1


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", OFFLINE)
def test_offline_opens_no_socket_and_names_the_url_and_the_file(own_cache, monkeypatch, name):
    with Site(whole(b"abc")) as site:
        local_path(site.url("here.txt"))
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a socket was opened"))
    assert offline()
    assert Path(local_path(site.url("here.txt"))).read_bytes() == b"abc"
    url = "https://example.org/w.pth"
    with pytest.raises(DownloadError) as refused:
        local_path(url)
    assert url in str(refused.value)
    assert str(own_cache / cache_name(url)) in str(refused.value)
    assert not path_manager.exists(url)
    with pytest.raises(DownloadError, match=r"hf://o/r/f.txt: offline and not in"):
        local_path("hf://o/r/f.txt")


@pytest.mark.parametrize(("value", "expected"), [("", False), ("0", False), ("TRUE", True)])
def test_offline_reads_yes_and_no(monkeypatch, value, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline() is expected


# ---- the cache folder


def test_the_cache_folder_is_the_first_that_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("LAVIS_LITE_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "lavis_lite"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == tmp_path / "home" / ".cache" / "lavis_lite"
    assert cache_dir().is_dir()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def obstacle(folder, kind):
    """A cache folder that cannot be written."""
    if kind == "below a file":
        (folder / "file").write_text("in the way")
        return folder / "file" / "cache"
    if kind == "of the kernel":
        return Path("/proc/self/cache")
    (folder / "locked").mkdir(mode=0o555)
    return folder / "locked"


@pytest.mark.fault(36)
@pytest.mark.parametrize("kind", ["below a file", "of the kernel", "read-only"])
def test_a_cache_that_cannot_be_written_is_replaced_with_one_warning(
    temporary, monkeypatch, caplog, kind
):
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(obstacle(temporary, kind)))
    with permissions_count():
        assert cache_dir() == cache_dir() == temporary / f"lavis_lite-{os.getuid()}"
        assert len(caplog.records) == 1
        assert "LAVIS_LITE_CACHE" in caplog.text
        assert cache_dir().stat().st_mode & 0o777 == 0o700
        with Site(whole(b"abc")) as site:  # and what is fetched lands there
            assert Path(local_path(site.url("a.txt"))).parent == cache_dir()


@pytest.mark.fault(36)
@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights away as Linux does")
def test_what_a_read_only_cache_holds_is_taken_from_it(temporary, own_cache, monkeypatch):
    with Site(whole(b"abc")) as site:
        kept = local_path(site.url("a.txt"))
        own_cache.chmod(0o555)
        with permissions_count():
            assert local_path(site.url("a.txt")) == kept
            assert len(site.requests) == 1
            monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
            with path_manager.open(site.url("a.txt")) as file:
                assert file.read() == "abc"
        own_cache.chmod(0o755)


def unknown_user(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")


@pytest.mark.fault(36)
@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_the_temporary_folder_serves(temporary, monkeypatch, caplog, home):
    for name in ("LAVIS_LITE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", unknown_user)  # as of a container run as any number
    monkeypatch.chdir(temporary)
    assert cache_dir().parent == temporary
    assert cache_dir() == cache_dir()
    assert "LAVIS_LITE_CACHE sets another folder" in caplog.text
    assert not (temporary / "~").exists()


def test_a_temporary_folder_that_others_may_write_is_not_trusted(temporary, monkeypatch):
    public = temporary / f"lavis_lite-{os.getuid()}"
    public.mkdir()
    public.chmod(0o777)
    monkeypatch.setenv("LAVIS_LITE_CACHE", "/dev/null/cache")
    assert cache_dir() != public
    assert cache_dir().parent == temporary


# ---- the hub


@pytest.fixture
def hub(monkeypatch, own_cache):
    """Stands in for the hub: keeps a file as huggingface_hub does, and notes what was asked."""
    calls = []

    def hf_hub_download(repo, file, *, cache_dir, **options):
        calls.append((repo, file, options["revision"], options["local_files_only"]))
        blob = Path(cache_dir) / "blobs" / SHA_OF_ABC
        if not blob.exists():
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(b"abc")
        link = Path(cache_dir) / "snapshots" / Path(file).name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        return str(link)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    return calls


def test_hub_addresses_name_repository_file_and_revision(hub, own_cache):
    for address in ("hf://o/r/w.bin", "hf://o/r/a/b.json@v1", "hf://o/r@refs/w.bin"):
        assert local_path(address).startswith(str(own_cache / "hub"))
    assert hub == [
        ("o/r", "w.bin", None, False),
        ("o/r", "a/b.json", "v1", False),
        ("o/r", "w.bin", "refs", False),
    ]


@pytest.mark.parametrize("address", ["hf://o/r", "hf://o", "hf://o/r/", "hf://o/r/../../x"])
def test_a_hub_address_that_is_none_says_how_to_write_it(hub, address):
    with pytest.raises(DownloadError, match="write it as hf://owner/repo/file"):
        local_path(address)


def test_a_damaged_file_of_the_hub_is_noticed_and_removed(hub, own_cache):
    path = Path(local_path("hf://o/r/w.bin"))
    path.write_bytes(b"abd")
    with pytest.raises(DownloadError, match=rf"wanted {SHA_OF_ABC}; removed"):
        local_path("hf://o/r/w.bin")
    assert Path(local_path("hf://o/r/w.bin")).read_bytes() == b"abc"
    with pytest.raises(DownloadError, match=r"wanted 0{64}"):
        local_path("hf://o/r/w.bin", sha256="0" * 64)
