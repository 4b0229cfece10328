"""Pictures by URL: from public addresses alone, and within bounds."""

from __future__ import annotations

import io
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Handler, Site
from PIL import Image

from lavis_lite.cli.images import Images
from lavis_lite.data.files.images import decode
from lavis_lite.errors import DataError
from lavis_lite.io import http as http_client
from lavis_lite.io import web_images
from lavis_lite.io.http import is_public
from lavis_lite.io.web_images import fetch_image
from lavis_lite.models.pipelines.reading import open_image

WATCHDOG = 60


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (9, 0, 0)).save(file, "PNG")
    return file.getvalue()


def picture(handler: Handler, number: int, **headers: Any) -> None:
    handler.head(200, content_length=len(png()), **headers)
    handler.wfile.write(png())


@pytest.fixture
def site() -> Iterator[Site]:
    """Shows a picture; a test gives it another answer."""
    with Site(picture) as site:
        yield site


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 passes for a public address, and nothing else does."""
    monkeypatch.setattr(http_client, "is_public", lambda address: str(address) == "127.0.0.1")


@pytest.fixture
def other() -> Iterator[Site]:
    """A second server, on 127.0.0.2, which never passes for public."""
    with Site(picture, "127.0.0.2") as site:
        yield site


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "0.0.0.0", "127.1", "0x7f.1", "0177.0.0.1"),
        str(int(ipaddress.ip_address("127.0.0.1"))),
        *("[::1]", "[::ffff:127.0.0.1]", "LOCALHOST"),
    ],
)
def test_this_machine_is_refused_however_its_name_is_written(host: str, site: Site) -> None:
    url = site.url("cat.png").replace("127.0.0.1", host)
    with pytest.raises(DataError, match=r"^refused: .* is not a public address; fetch it and give"):
        open_image(url)
    assert site.requests == []


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "192.168.1.1"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "[fe80::1]", "[fc00::1]", "[fd12::1]"),
        *("[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:a00:1::]", "[::]"),
    ],
)
def test_private_addresses_are_refused_before_anything_is_sent(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda *given, **how: connected.append(given))
    with pytest.raises(DataError, match="is not a public address"):
        open_image(f"http://{host}/latest/meta-data")
    assert connected == []


def test_public_addresses_are_told_from_the_others() -> None:
    for text in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(text)), text


@pytest.mark.fault(46)
def test_one_private_address_among_those_of_a_name_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(0, 0, 0, "", (one, 80)) for one in ("8.8.8.8", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **how: answers)
    with pytest.raises(DataError, match=r"rebind\.example \(10\.0\.0\.7\) is not a public address"):
        fetch_image("http://rebind.example/cat.png")


@pytest.mark.fault(46)
def test_a_name_whose_answer_changes_is_resolved_once(
    site: Site, other: Site, public: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, []

    def rebind(host: Any, *given: Any, **how: Any) -> Any:
        if host != "rebind.example":
            return resolve(host, *given, **how)
        asked.append(host)
        return resolve("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *given, **how)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    assert decode(fetch_image(f"http://rebind.example:{site.port}/cat.png")).size == (3, 2)
    assert (len(asked), len(site.requests), len(other.requests)) == (1, 1, 0)
    assert site.requests[0][1]["Host"] == f"rebind.example:{site.port}"


@pytest.mark.fault(46)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with it")
@pytest.mark.parametrize("host", ["pictures.example", "other.example"])
def test_a_certificate_is_of_the_name_and_not_of_the_address(
    host: str, site: Site, public: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, of = (str(tmp_path / name) for name in ("key.pem", "certificate.pem"))
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:pictures.example"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", own, "-out", of]
    subprocess.run([*make, *names], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(of, own)
    site.server.socket = tls.wrap_socket(site.server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", of)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *given, **how: resolve("127.0.0.1", *given, **how)
    )
    url = f"https://{host}:{site.port}/cat.png"
    if host == "pictures.example":
        assert decode(fetch_image(url)).size == (3, 2)
    else:
        with pytest.raises(DataError, match=r"^refused: its certificate is not trusted"):
            fetch_image(url)


@pytest.mark.fault(46)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address_is_refused(
    status: int, site: Site, other: Site, public: None
) -> None:
    site.answer = lambda handler, number: handler.head(status, location=other.url("cat.png"))
    with pytest.raises(DataError, match=r"^refused: 127\.0\.0\.2 is not a public address"):
        fetch_image(site.url("cat.png"))
    assert other.requests == []


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/x", "gopher:x"]
)
def test_a_redirect_to_what_is_no_web_address_is_refused(
    target: str, site: Site, public: None
) -> None:
    site.answer = lambda handler, number: handler.head(302, location=target)
    with pytest.raises(DataError, match=r"^refused: "):
        fetch_image(site.url("cat.png"))
    assert len(site.requests) == 1


@pytest.mark.fault(46)
def test_three_redirects_are_followed_and_no_fourth(site: Site, public: None) -> None:
    def hop(handler: Handler, number: int) -> None:
        if number <= hops:
            handler.head(302, location=f"/{number}.png", content_length=0)
        else:
            picture(handler, number)

    site.answer, hops = hop, 3
    assert decode(fetch_image(site.url("0.png"))).size == (3, 2)
    assert [path for path, _ in site.requests] == ["/0.png", "/1.png", "/2.png", "/3.png"]
    site.requests.clear()
    hops = 4
    with pytest.raises(DataError, match=r"^refused: more than 3 redirects"):
        fetch_image(site.url("0.png"))
    assert len(site.requests) == 4


@pytest.mark.fault(46)
@pytest.mark.parametrize("url", ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://8.8.8.8/cat"])
def test_other_schemes_are_not_read(url: str) -> None:
    with pytest.raises(DataError, match="nothing here reads"):
        open_image(url)


@pytest.mark.fault(46)
@pytest.mark.parametrize("stated", [True, False])
def test_more_than_twenty_megabytes_are_not_read(
    stated: bool, site: Site, public: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert web_images.MAX_BYTES == 20_000_000
    monkeypatch.setattr(web_images, "MAX_BYTES", 50_000)
    sent = []

    def endless(handler: Handler, number: int) -> None:
        handler.head(200, **({"content_length": 10**9} if stated else {}))
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))
            sent.append(100_000)

    site.answer = endless
    with pytest.raises(DataError, match=r"^too large: "):
        fetch_image(site.url("cat.png"))
    assert sum(sent) < 50_000_000  # what lies in the buffers of two sockets; else a hundred


def drips(handler: Handler, number: int) -> None:
    """A byte of the body now and then, for ever: no timeout of a socket ever runs out."""
    handler.head(200, content_length=10**6)
    while not handler.server.site.closing.wait(0.02):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")


def drips_headers(handler: Handler, number: int) -> None:
    while not handler.server.site.closing.wait(0.02):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")


def says_nothing(handler: Handler, number: int) -> None:
    handler.server.site.closing.wait(WATCHDOG)  # type: ignore[attr-defined]


@pytest.mark.fault(46)
@pytest.mark.parametrize("answer", [drips, drips_headers, says_nothing])
def test_ten_seconds_are_for_all_of_it(answer: Any, site: Site, public: None) -> None:
    assert web_images.SECONDS == 10
    site.answer = answer
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"^timeout: "):
        fetch_image(site.url("cat.png"), seconds=0.3)
    assert time.monotonic() - begin < WATCHDOG / 2


@pytest.mark.fault(46)
def test_a_name_that_is_never_resolved_holds_nobody_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *given, **how: site.closing.wait(WATCHDOG) and []
    )
    with pytest.raises(DataError, match=r"^timeout: slow\.example is not resolved"):
        fetch_image("http://slow.example/cat.png", seconds=0.1)


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        *(("noai", False), ("noimageai", False), ("noindex, nofollow", False), ("none", False)),
        *(("lavis_lite: noai", False), ("NoAI", False), ("*: none", False)),
        *(("noai, max-snippet:-1", False), ("max-image-preview:large, noai", False)),
        *(("unavailable_after: 1 Jan 2030 00:00:00 GMT, noindex", False),),
        *(("max-image-preview:none", True), ("max-snippet: 0, all", True)),
        *(("googlebot: noindex", True), ("nofollow", True), ("all", True)),
    ],
)
def test_the_wish_of_a_site_is_honoured(tag: str, wanted: bool, site: Site, public: None) -> None:
    site.answer = lambda handler, number: picture(handler, number, x_robots_tag=tag)
    if wanted:
        assert decode(fetch_image(site.url("cat.png"))).size == (3, 2)
        return
    with pytest.raises(DataError, match=r"^refused: the site asks not to .*X-Robots-Tag"):
        fetch_image(site.url("cat.png"))


@pytest.mark.fault(46)
def test_proxies_of_the_environment_are_not_asked(
    site: Site, other: Site, public: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    assert decode(fetch_image(site.url("cat.png"))).size == (3, 2)
    assert other.requests == []


@pytest.mark.fault(46)
def test_nothing_is_fetched_offline(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LAVIS_LITE_OFFLINE", "1")
    with pytest.raises(DataError, match=r"^not fetched: the network is switched off"):
        open_image(site.url("cat.png"))


@pytest.mark.fault(46)
def test_urls_in_data_are_not_fetched_at_all(site: Site, public: None) -> None:
    with pytest.raises(DataError, match="images are not fetched while reading"):
        decode(site.url("cat.png"))
    assert site.requests == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_picture_that_is_not_there_costs_the_others_nothing(
    status: int, site: Site, public: None
) -> None:
    def some(handler: Handler, number: int) -> None:
        if "gone" in handler.path:
            handler.head(status, content_length=0)
        else:
            picture(handler, number)

    site.answer = some
    images = Images([site.url("gone.png"), site.url("cat%20é.png?x=1")])
    from torchvision.transforms.functional import pil_to_tensor

    (batch,) = images.batches(pil_to_tensor, 4)
    assert batch.numbers == [1]
    assert f"HTTP {status}" in images.report()


def test_a_body_that_is_cut_is_told(site: Site, public: None) -> None:
    def cut(handler: Handler, number: int) -> None:
        handler.head(200, content_length=1000)
        handler.wfile.write(b"x" * 10)

    site.answer = cut
    with pytest.raises(DataError, match=r"not reachable: 127.0.0.1: cut after 10 of 1000 bytes"):
        fetch_image(site.url("cat.png"))
