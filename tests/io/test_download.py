"""The cache holds whole files, each fetched once, also when several processes want it."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from misbehaving_server import BODY, PATIENT, QUICK, SHA, Site, fetch_in_process, get, silent, whole

from lavis_lite.errors import DownloadError
from lavis_lite.io import download
from lavis_lite.io.download import cache_name, fetch
from lavis_lite.io.files import publish


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def left_behind(folder):
    return [name for name in names(folder) if not name.endswith((".pth", ".pth.json"))]


# ---- whole files


@pytest.mark.parametrize("sha256", [None, SHA, SHA.upper()])
def test_a_file_is_fetched_once_and_nothing_else_stays(tmp_path, sha256):
    with Site(whole(BODY)) as site:
        path = Path(get(site, tmp_path, sha256=sha256))
        assert get(site, tmp_path, sha256=sha256) == str(path)
    assert path.read_bytes() == BODY
    assert path.parent == tmp_path
    assert path.name == cache_name(site.url("w.pth"))
    assert names(tmp_path) == [path.name, f"{path.name}.json"]
    assert json.loads((tmp_path / f"{path.name}.json").read_text())["sha256"] == SHA
    assert len(site.requests) == 1


def test_force_fetches_it_anew(tmp_path):
    with Site(whole(BODY)) as site:
        get(site, tmp_path)
        get(site, tmp_path, force=True)
    assert len(site.requests) == 2


def test_a_chunked_body_needs_no_length(tmp_path):
    def answer(handler, number):
        handler.head(200, transfer_encoding="chunked")
        for part in (BODY[:1000], BODY[1000:], b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY


# ---- names in the cache


URLS = [
    "http://a.example/w.pth",
    "http://b.example/w.pth",
    "http://a.example/x/w.pth",
    "http://a.example/w.pth?a=b",
    "http://a.example/../../../../w.pth",
    "http://a.example/%2e%2e%2f%2e%2e%2fw.pth",
    "http://a.example/..",
    "http://a.example/",
    "http://a.example/" + "n" * 5000 + ".pth",
    "http://a.example/.part",
    "http://a.example/\\..\\w.pth",
]


@pytest.mark.fault(33)
def test_every_url_has_a_name_of_its_own_inside_the_cache(tmp_path):
    paths = {os.path.realpath(tmp_path / cache_name(url)) for url in URLS}
    assert len(paths) == len(URLS)
    for path in paths:
        assert os.path.dirname(path) == os.path.realpath(tmp_path)
        assert len(os.path.basename(path)) < 120
    assert cache_name(URLS[0]).endswith("-w.pth")


@pytest.mark.fault(33)
def test_hosts_queries_and_paths_that_climb_share_no_file(tmp_path):
    def answer(handler, number):
        own = f"{handler.headers['Host']} {handler.path}".encode()
        handler.head(200, content_length=len(own))
        handler.wfile.write(own)

    cache = tmp_path / "cache"
    cache.mkdir()
    paths = ["w.pth", "w.pth?a=b", "w.pth?a=c", "../../w.pth", "%2e%2e/%2e%2e/w.pth", "..", "a/.."]
    with Site(answer) as one, Site(answer) as other:
        files = {s.url(path): Path(get(s, cache, path)) for s in (one, other) for path in paths}
        assert len(set(files.values())) == len(files) == 14
        for url, file in files.items():
            assert os.path.dirname(os.path.realpath(file)) == os.path.realpath(cache)
            host, _, path = url.removeprefix("http://").partition("/")
            assert file.read_text() == f"{host} /{path}"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


# ---- what is in the cache already


def test_a_cached_file_that_changed_is_noticed_and_fetched_anew(tmp_path, caplog):
    with Site(whole(BODY)) as site:
        path = Path(get(site, tmp_path))
        path.write_bytes(BODY[:-1] + b"!")
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert len(site.requests) == 2
    assert "damaged or another file" in caplog.text


def test_a_cached_file_is_read_again_only_if_its_time_or_size_changed(tmp_path, monkeypatch):
    reads = []
    real = download.sha256_of
    with Site(whole(BODY)) as site:
        path = Path(get(site, tmp_path))
        monkeypatch.setattr(download, "sha256_of", lambda p: reads.append(p) or real(p))
        get(site, tmp_path)
        assert reads == []
        os.utime(path)
        get(site, tmp_path)
        get(site, tmp_path)
    assert reads == [path]
    assert len(site.requests) == 1


def test_a_file_put_there_by_hand_is_taken(tmp_path):
    url = "http://nowhere.invalid/w.pth"
    (tmp_path / cache_name(url)).write_bytes(BODY)
    assert fetch(url, tmp_path, offline=True) == str(tmp_path / cache_name(url))
    assert fetch(url, tmp_path, offline=True, sha256=SHA)
    with pytest.raises(DownloadError, match="network is switched off"):
        fetch(url, tmp_path, offline=True, sha256="0" * 64)


def test_a_full_disk_is_told_apart_from_the_network(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    wanted = r"cannot write .*No space left on device"
    with Site(whole(BODY)) as site, pytest.raises(DownloadError, match=wanted):
        get(site, tmp_path)
    assert len(site.requests) == 1


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done, real_sync, real_replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("sync") or real_sync(handle))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("name") or real_replace(*paths))
    (tmp_path / "w.part").write_bytes(BODY)
    publish(tmp_path / "w.part", tmp_path / "w.pth")
    assert done == ["sync", "name", "sync"]  # the bytes, then the name, then the folder's entry
    assert (tmp_path / "w.pth").read_bytes() == BODY


# ---- several processes


def start(url, folder, results):
    process = multiprocessing.get_context("forkserver").Process(
        target=fetch_in_process, args=(url, str(folder), results), daemon=True
    )
    process.start()
    return process


@pytest.mark.fault(34)
def test_eight_processes_fetch_a_url_once(tmp_path):
    def slow(handler, number):
        time.sleep(0.5)
        whole(BODY)(handler, number)

    with Site(slow) as site, multiprocessing.get_context("forkserver").Manager() as manager:
        results = manager.Queue()
        processes = [start(site.url("w.pth"), tmp_path, results) for _ in range(8)]
        paths = {results.get(timeout=60) for _ in processes}
        for process in processes:
            process.join(10)
    assert paths == {str(tmp_path / cache_name(site.url("w.pth")))}
    assert len(site.requests) == 1
    assert left_behind(tmp_path) == []


@pytest.mark.fault(34, 35)
def test_the_lock_of_a_dead_process_is_free(tmp_path):
    def answer(handler, number):
        silent(handler, number) if number == 1 else whole(BODY)(handler, number)

    with Site(answer) as site, multiprocessing.get_context("forkserver").Manager() as manager:
        owner = start(site.url("w.pth"), tmp_path, manager.Queue())
        while not site.requests:
            time.sleep(0.02)
        with pytest.raises(DownloadError, match=r"another process has held .*\.lock for 1 s"):
            get(site, tmp_path, limits=QUICK)
        owner.kill()
        owner.join(10)
        five_seconds = dataclasses.replace(PATIENT, lock=5)
        assert Path(get(site, tmp_path, limits=five_seconds)).read_bytes() == BODY
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_its_owner_has_deleted_meanwhile_excludes_nobody(tmp_path, monkeypatch, again):
    path, real = tmp_path / "w.lock", download.fcntl.flock

    def flock(handle, how):
        kept = path.rename(tmp_path / "old")  # the owner is done between our opening and locking
        if again:
            path.touch()  # and somebody else has begun
        assert kept.exists()
        return real(handle, how)

    monkeypatch.setattr(download.fcntl, "flock", flock)
    assert download._try_lock(path) is None


def test_who_waits_for_another_process_counts_from_its_last_byte(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(download.time, "monotonic", lambda: now[0])
    progress = download._Progress(tmp_path / "w.part")
    idle = []
    for clock, size in ((100.0, 0), (107.0, 0), (108.0, 5), (110.0, 5), (111.0, 6)):
        now[0] = clock
        (tmp_path / "w.part").write_bytes(b"x" * size)
        idle.append(progress.idle())
    assert idle == [0, 7, 0, 2, 0]
