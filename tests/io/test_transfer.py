"""Transfers from a server that misbehaves in every way: resumed or refused, never half a file."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import time
from pathlib import Path

import httpx2
import pytest
from misbehaving_server import BODY, PATIENT, QUICK, SHA, Site, get, silent, whole

from lavis_lite.errors import DownloadError
from lavis_lite.io import download
from lavis_lite.io.download import LOCKS, cache_name, fetch
from lavis_lite.io.transfer import Limits


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != LOCKS)


# ---- cuts and resumption


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("etag", "sha256"), [('"1"', None), ('"1"', SHA), (None, None), ('W/"1"', None)]
)
def test_a_download_cut_twice_is_resumed(tmp_path, etag, sha256):
    with Site(whole(BODY, etag=etag, cuts=(40_000, 40_000))) as site:
        path = Path(get(site, tmp_path, sha256=sha256))
    assert path.read_bytes() == BODY
    ranges = [headers.get("Range") for _, headers in site.requests]
    assert ranges == [None, "bytes=40000-", "bytes=80000-"]
    assert len(names(tmp_path)) == 2  # the file and its note


def test_another_process_goes_on_where_the_last_one_stopped(tmp_path):
    with Site(whole(BODY, cuts=(100, 100, 100))) as site:
        with pytest.raises(DownloadError, match=r"in 3 tries: cut after 300 of 102400 bytes"):
            get(site, tmp_path)
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert site.requests[-1][1]["Range"] == "bytes=300-"
    assert site.requests[-1][1]["If-Range"] == '"1"'


@pytest.mark.parametrize("etag", [None, 'W/"1"'])  # a weak one does not promise the same bytes
def test_without_a_promise_of_sameness_another_process_starts_over(tmp_path, etag):
    with Site(whole(BODY, etag=etag, cuts=(100, 100, 100))) as site:
        with pytest.raises(DownloadError, match="cut after"):
            get(site, tmp_path)
        get(site, tmp_path)
    assert "Range" not in site.requests[-1][1]


@pytest.mark.fault(31)
def test_a_server_that_ignores_range_starts_over(tmp_path):
    def answer(handler, number):
        handler.head(200, content_length=len(BODY), etag='"1"')
        handler.wfile.write(BODY[: 40_000 if number == 1 else None])

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY
    assert site.requests[1][1]["Range"] == "bytes=40000-"
    assert len(site.requests) == 2  # the whole file that was sent is taken, not thrown away


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
    (too_large, "larger than the 1,000,000 bytes"),
    (endless, "larger than the 1,000,000 bytes"),
    (gone, "HTTP 404 Not Found"),
    (to_a_local_file, "file:///etc/passwd is not an http or https address"),
]


@pytest.mark.fault(32)
@pytest.mark.parametrize(("answer", "complaint"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_not_the_file_is_refused_at_once_and_nothing_is_kept(tmp_path, answer, complaint):
    with Site(answer) as site:
        with pytest.raises(DownloadError, match=complaint) as refused:
            get(site, tmp_path, limits=dataclasses.replace(PATIENT, max_bytes=1_000_000))
        assert site.url("w.pth") in str(refused.value)
    assert len(site.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.fault(29)
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


def test_a_redirect_is_followed(tmp_path):
    def answer(handler, number):
        if handler.path == "/w.pth":
            return handler.head(302, location="/moved.pth", content_length=0)
        whole(BODY)(handler, number)

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY


def test_no_redirect_leads_from_https_to_http(tmp_path, monkeypatch):
    asked = []

    def answer(request):
        asked.append(str(request.url))
        return httpx2.Response(302, headers={"Location": "http://a.example/"})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(httpx2, "Client", lambda **options: client)
    with pytest.raises(DownloadError, match=r"redirects to http://a.example/, which is not"):
        fetch("https://a.example/w.pth", tmp_path, limits=QUICK)
    assert asked == ["https://a.example/w.pth"]


def test_redirects_come_to_an_end(tmp_path):
    def answer(handler, number):
        handler.head(302, location="/w.pth")

    with Site(answer) as site, pytest.raises(DownloadError, match="more than 10 redirects"):
        get(site, tmp_path)
    assert len(site.requests) == 11


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_problem_is_tried_again(tmp_path, code):
    def answer(handler, number):
        whole(BODY)(handler, number) if number == 3 else handler.head(code, content_length=0)

    with Site(answer) as site:
        assert Path(get(site, tmp_path)).read_bytes() == BODY


def test_tries_are_further_and_further_apart(tmp_path, monkeypatch):
    def answer(handler, number):
        whole(BODY)(handler, number) if number == 4 else handler.head(503, content_length=0)

    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    with Site(answer) as site:
        get(site, tmp_path, limits=Limits(tries=4, backoff=3))
    assert waits == [3, 6, 12]


@pytest.mark.parametrize("url", ["http://", "http://[bad/x", "http://h:port/x", "http://u:pw@h/x"])
def test_a_malformed_url_is_refused_and_no_password_shown(tmp_path, url):
    with pytest.raises(DownloadError) as refused:
        fetch(url, tmp_path, limits=QUICK)
    assert "pw" not in str(refused.value)


# ---- servers that do not answer


def dripping(handler, number):
    handler.head(200, content_length=len(BODY))
    for i in range(100):
        handler.wfile.write(BODY[i : i + 1])
        if handler.server.site.closing.wait(0.05):
            return


def half_and_silence(handler, number):
    handler.head(200, content_length=len(BODY))
    handler.wfile.write(BODY[:50_000])
    silent(handler, number)


def dripping_head(handler, number):
    for _ in range(1000):
        handler.wfile.write(b"H")
        if handler.server.site.closing.wait(0.05):
            return


@pytest.mark.fault(35)
@pytest.mark.parametrize("answer", [silent, dripping, dripping_head, half_and_silence])
def test_a_silent_server_is_given_up_after_three_tries(tmp_path, answer):
    start = time.monotonic()
    with Site(answer) as site, pytest.raises(DownloadError, match=r"in 3 tries: (the server|only)"):
        get(site, tmp_path, limits=QUICK)
    assert len(site.requests) == 3
    assert time.monotonic() - start < 60


@pytest.mark.fault(35)
def test_a_try_has_a_limit_for_all_of_it(tmp_path):
    def steady(handler, number):
        handler.head(200, content_length=10**9)
        while not handler.server.site.closing.wait(0.01):
            handler.wfile.write(bytes(10_000))

    limits = dataclasses.replace(PATIENT, total=0.5, tries=2)
    with Site(steady) as site, pytest.raises(DownloadError, match="in 2 tries: the server"):
        get(site, tmp_path, limits=limits)
    assert len(site.requests) == 2


@pytest.mark.fault(35)
def test_connecting_has_a_limit_of_its_own(tmp_path, monkeypatch):
    seen, real = [], socket.create_connection

    def connect(address, timeout, **rest):
        seen.append(timeout)
        return real(address, timeout, **rest)

    monkeypatch.setattr(socket, "create_connection", connect)
    with Site(whole(BODY)) as site:
        get(site, tmp_path, limits=Limits(connect=7, read=9))
    assert seen == [7]


@pytest.mark.fault(35)
def test_a_server_that_takes_no_connection_is_given_up(tmp_path):
    limits = dataclasses.replace(QUICK, connect=0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        for _ in range(3):  # its queue of connections is full; the kernel answers no more
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        with pytest.raises(DownloadError, match=r"in 3 tries: the server does not answer"):
            fetch(f"http://127.0.0.1:{address[1]}/w.pth", tmp_path, limits=limits)
        for one in waiting:
            one.close()


def test_nobody_there_says_where_to_put_the_file(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadError, match="Connection refused") as refused:
            fetch(url, tmp_path, limits=QUICK)
    assert str(tmp_path / cache_name(url)) in str(refused.value)


def test_a_server_without_tls_is_not_spoken_to_over_https(tmp_path):
    with Site(whole(BODY)) as site, pytest.raises(DownloadError, match=r"(?i)in 3 tries: .*ssl"):
        fetch(site.url("w.pth").replace("http:", "https:"), tmp_path, limits=QUICK)


@pytest.mark.fault(35)
def test_the_default_limits_give_up_within_two_minutes():
    limits = download.LIMITS
    assert (limits.connect, limits.read, limits.tries) == (10, 30, 3)
    waits = sum(limits.backoff * 2**n for n in range(limits.tries - 1))
    assert limits.tries * limits.read + waits < 120
