"""Downloads from a server that misbehaves in every way: the cache holds whole files or none."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from misbehaving_server import Site, fetch_in_process, silent, whole

from lavis_lite import download
from lavis_lite.download import cache_name, fetch
from lavis_lite.errors import DownloadError
from lavis_lite.transfer import Limits, _Redirect

BODY = bytes(range(256)) * 400
SHA = hashlib.sha256(BODY).hexdigest()
LIMITS = Limits(connect=1, read=0.4, tries=3, backoff=0.01, lock=1)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(site, folder, path="w.pth", **options):
    return fetch(site.url(path), folder, **({"limits": LIMITS} | options))


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


# ---- cuts and resumption


@pytest.mark.parametrize(
    ("etag", "sha256"), [('"1"', None), ('"1"', SHA), (None, None), ('W/"1"', None)]
)
def test_a_download_cut_twice_is_resumed(tmp_path, etag, sha256):
    with Site(whole(BODY, etag=etag, cuts=(40_000, 40_000))) as site:
        path = Path(get(site, tmp_path, sha256=sha256))
    assert path.read_bytes() == BODY
    ranges = [headers.get("Range") for _, headers in site.requests]
    assert ranges == [None, "bytes=40000-", "bytes=80000-"]
    assert left_behind(tmp_path) == []


def test_another_process_goes_on_where_the_last_one_stopped(tmp_path):
    with Site(whole(BODY, cuts=(100, 100, 100))) as site:
        with pytest.raises(DownloadError, match=r"in 3 tries: cut after 300 of 102400 bytes"):
            get(site, tmp_path)
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert site.requests[-1][1]["Range"] == "bytes=300-"
    assert site.requests[-1][1]["If-Range"] == '"1"'


def test_without_a_promise_of_sameness_another_process_starts_over(tmp_path):
    with Site(whole(BODY, etag=None, cuts=(100, 100, 100))) as site:
        with pytest.raises(DownloadError, match="cut after"):
            get(site, tmp_path)
        get(site, tmp_path)
    assert "Range" not in site.requests[-1][1]


def test_a_server_that_ignores_range_starts_over(tmp_path):
    def answer(handler, number):
        handler.head(200, content_length=len(BODY), etag='"1"')
        handler.wfile.write(BODY[: 40_000 if number == 1 else None])

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert site.requests[1][1]["Range"] == "bytes=40000-"


def test_a_file_that_changes_meanwhile_is_not_joined_to_the_old_one(tmp_path):
    new = BODY[::-1]

    def answer(handler, number):
        whole(BODY, cuts=(999,))(handler, 1) if number == 1 else whole(new, etag='"2"')(handler, 2)

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == new


@pytest.mark.parametrize("span", ["bytes 0-10/102400", "bytes 999-102399/999999", "nonsense", ""])
def test_a_wrong_part_is_refused_and_the_file_fetched_from_the_start(tmp_path, span):
    def answer(handler, number):
        if number != 2:
            return whole(BODY, cuts=(999,))(handler, number)
        handler.head(206, content_range=span, content_length=10)
        handler.wfile.write(b"0123456789")

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert "Range" not in site.requests[2][1]


def test_a_joined_file_with_the_wrong_digest_is_fetched_from_the_start(tmp_path):
    mixed = b"x" * 999 + BODY[999:]
    answers = [whole(mixed, etag=None, cuts=(999,)), whole(BODY, etag=None)]

    def answer(handler, number):
        answers[min(number, 2) - 1](handler, number)

    with Site(answer) as site:
        assert Path(get(site, tmp_path, sha256=SHA)).read_bytes() == BODY
    assert len(site.requests) == 3


def test_a_part_longer_than_the_file_is_dropped(tmp_path):
    def answer(handler, number):
        if "Range" in handler.headers:
            return handler.head(416, content_length=0)
        whole(BODY)(handler, number)

    with Site(answer) as site:
        part = tmp_path / f"{cache_name(site.url('w.pth'))}.part"
        part.write_bytes(BODY * 2)
        assert Path(get(site, tmp_path, sha256=SHA)).read_bytes() == BODY


# ---- refusals


def html(handler, number):
    handler.head(200, content_type="text/html; charset=utf-8", content_length=len(BODY))
    handler.wfile.write(BODY)


def hidden_html(handler, number):
    page = b"\n<!DOCTYPE html><html>Please sign in</html>"
    handler.head(200, content_type="application/octet-stream", content_length=len(page))
    handler.wfile.write(page)


def empty(handler, number):
    handler.head(200, content_length=0)


def no_length(handler, number):
    handler.head(200)
    handler.wfile.write(BODY[:1000])


def zipped(handler, number):
    handler.head(200, content_encoding="gzip", content_length=len(BODY))
    handler.wfile.write(BODY)


def too_large(handler, number):
    handler.head(200, content_length=1 << 50)


def endless(handler, number):
    handler.head(200, transfer_encoding="chunked")
    while True:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY))


def gone(handler, number):
    handler.head(404, content_length=0)


def to_a_local_file(handler, number):
    handler.head(302, location="file:///etc/passwd", content_length=0)


REFUSED = [
    (html, "sent a web page"),
    (hidden_html, "sent a web page"),
    (empty, "sent an empty file"),
    (no_length, "does not say how long the file is"),
    (zipped, "gzip-encoded"),
    (too_large, "larger than the 1000000 bytes"),
    (endless, "larger than the 1000000 bytes"),
    (gone, "HTTP 404 Not Found"),
    (to_a_local_file, "HTTP 302 .*file:///etc/passwd"),
]


@pytest.mark.parametrize(("answer", "complaint"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_not_the_file_is_refused_at_once_and_nothing_is_kept(tmp_path, answer, complaint):
    with Site(answer) as site:
        with pytest.raises(DownloadError, match=complaint) as refused:
            get(site, tmp_path, limits=Limits(read=1, max_bytes=1_000_000))
        assert site.url("w.pth") in str(refused.value)
    assert len(site.requests) == 1
    assert names(tmp_path) == []


def test_a_wrong_digest_shows_both_and_leaves_nothing(tmp_path):
    with Site(whole(BODY)) as site, pytest.raises(DownloadError) as refused:
        get(site, tmp_path, sha256="0" * 64)
    assert f"wanted sha256 {'0' * 64}, got {SHA}" in str(refused.value)
    assert names(tmp_path) == []
    assert len(site.requests) == 1


def test_a_length_that_is_missing_is_made_up_for_by_a_digest(tmp_path):
    with Site(no_length) as site:
        cut = hashlib.sha256(BODY[:1000]).hexdigest()
        assert Path(get(site, tmp_path, sha256=cut)).read_bytes() == BODY[:1000]
        with pytest.raises(DownloadError, match="wanted sha256"):
            get(site, tmp_path, path="other.pth", sha256=SHA)


def test_a_redirect_is_followed_but_never_from_https_to_http(tmp_path):
    def answer(handler, number):
        if handler.path == "/w.pth":
            return handler.head(302, location="/moved.pth", content_length=0)
        whole(BODY)(handler, number)

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    request = urllib.request.Request("https://a.example/w.pth")
    with pytest.raises(DownloadError, match=r"redirects to http://a.example/, which is not"):
        _Redirect().redirect_request(request, None, 302, "", {}, "http://a.example/")


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_problem_is_tried_again(tmp_path, code):
    def answer(handler, number):
        whole(BODY)(handler, number) if number == 3 else handler.head(code, content_length=0)

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY


@pytest.mark.parametrize("url", ["http://", "http://[bad/x", "http://h:port/x", "http://u:pw@h/x"])
def test_a_malformed_url_is_refused_and_no_password_shown(tmp_path, url):
    with pytest.raises(DownloadError) as refused:
        fetch(url, tmp_path, limits=LIMITS)
    assert "pw" not in str(refused.value)


# ---- servers that do not answer


def dripping(handler, number):
    handler.head(200, content_length=len(BODY))
    for i in range(100):
        handler.wfile.write(BODY[i : i + 1])
        if handler.server.site.closing.wait(0.05):
            return


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_silent_server_is_given_up_after_three_tries(tmp_path, answer):
    start = time.monotonic()
    with Site(answer) as site, pytest.raises(DownloadError, match=r"in 3 tries: (the server|only)"):
        get(site, tmp_path)
    assert len(site.requests) == 3
    assert time.monotonic() - start < 10


def test_nobody_there_says_where_to_put_the_file(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadError, match="Connection refused") as refused:
            fetch(url, tmp_path, limits=LIMITS)
    assert str(tmp_path / cache_name(url)) in str(refused.value)


def test_a_server_without_tls_is_not_spoken_to_over_https(tmp_path):
    with Site(whole(BODY)) as site, pytest.raises(DownloadError, match=r"(?i)in 3 tries: .*ssl"):
        fetch(site.url("w.pth").replace("http:", "https:"), tmp_path, limits=LIMITS)


def test_the_default_limits_give_up_within_two_minutes():
    limits = download.LIMITS
    assert (limits.connect, limits.read, limits.tries) == (10, 30, 3)
    waits = sum(limits.backoff * 2**n for n in range(limits.tries - 1))
    assert limits.tries * limits.read + waits < 120


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


def test_every_url_has_a_name_of_its_own_inside_the_cache(tmp_path):
    paths = {os.path.realpath(tmp_path / cache_name(url)) for url in URLS}
    assert len(paths) == len(URLS)
    for path in paths:
        assert os.path.dirname(path) == os.path.realpath(tmp_path)
        assert len(os.path.basename(path)) < 120
    assert cache_name(URLS[0]).endswith("-w.pth")


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


# ---- several processes


def start(url, folder, results):
    process = multiprocessing.get_context("forkserver").Process(
        target=fetch_in_process, args=(url, str(folder), results), daemon=True
    )
    process.start()
    return process


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


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    def answer(handler, number):
        silent(handler, number) if number == 1 else whole(BODY)(handler, number)

    with Site(answer) as site, multiprocessing.get_context("forkserver").Manager() as manager:
        owner = start(site.url("w.pth"), tmp_path, manager.Queue())
        while not site.requests:
            time.sleep(0.02)
        with pytest.raises(DownloadError, match=r"another process has held .*\.lock for 1 s"):
            get(site, tmp_path)
        owner.kill()
        owner.join(10)
        began = time.monotonic()
        assert Path(get(site, tmp_path)).read_bytes() == BODY
        assert time.monotonic() - began < 5
    assert left_behind(tmp_path) == []
