"""A server that speaks chat completions as a captioner, and all that servers do wrong."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from email.utils import formatdate

import pytest
import torch
from misbehaving_server import Site
from PIL import Image

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError, DownloadError
from lavis_lite.projects.blip.capfilt.chat import seconds_of

KEY = "sk-very-secret-0123"


def said(text="a red square", **message):
    body = {"choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}]}
    return json.dumps(body).encode()


def send(handler, body, status=200, **headers):
    handler.head(status, content_length=len(body), **headers)
    handler.wfile.write(body)


def good(handler, number):
    send(handler, said())


def silent(handler, number):
    handler.server.site.closing.wait(30)


def cut(handler, number):
    handler.head(200, content_length=500)
    handler.wfile.write(said())


def dripping(handler, number):
    handler.head(200, content_length=500)
    while not handler.server.site.closing.wait(0.05):
        handler.wfile.write(b" ")


def answers(body, status=200, **headers):
    return lambda handler, number: send(handler, body, status, **headers)


CUT_SHORT = json.dumps(
    {"choices": [{"message": {"content": "a red"}, "finish_reason": "length"}]}
).encode()
HUGE = b" " * 1_000_001
MISBEHAVIOURS = {
    "status 429": answers(b"slow down", 429),
    "status 500": answers(b"oh no", 500),
    "status 503": answers(b"loading", 503),
    "timeout": silent,
    "timeout: the server": dripping,
    "answer cut": cut,
    "answer is no JSON": answers(b"<html>a proxy</html>"),
    "answer is no chat completion": answers(b'{"choices": []}'),
    "answer is no chat completion: [1]": answers(b"[1]"),
    "answer too large": answers(HUGE),
    "empty answer": answers(said("  ")),
    "refusal: I'm sorry, but": answers(said("I'm sorry, but I can't help.")),
    "refusal: no": answers(said(None, refusal="no")),
    "answer longer than max_tokens": answers(CUT_SHORT),
}


def image_of(handler):
    return json.loads(handler.server.site.bodies[-1])["messages"][0]["content"][0]


def endpoint(site, **arguments):
    spec = {"name": "endpoint", "url": site.url("v1"), "model": "qwen", "image_size": 8}
    spec |= {"retries": 2, "timeout": 30.0, "backoff": 0.01}
    return registry.build("model", {**spec, **arguments})


def ask(site, count=1, options=None, **arguments):
    pictures = [Image.new("RGB", (16, 8), (40 * n, 0, 0)) for n in range(count)]
    return endpoint(site, **arguments).ask(pictures, list(range(count)), **(options or {}))


def test_an_image_travels_as_a_data_url_with_the_prompt_and_the_sampling():
    with Site(good) as site:
        options = {"temperature": 0.5, "max_tokens": 20, "extra": {"top_k": 5}}
        assert ask(site, options=options, prompt="Look.", system="Be brief.") == [["a red square"]]
        (body,) = [json.loads(one) for one in site.bodies]
    assert site.requests[0][0] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("qwen", 0.5, 20)
    assert body["top_k"] == 5
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    image, text = user["content"]
    assert text == {"type": "text", "text": "Look."}
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 4)


@pytest.mark.parametrize("reason", MISBEHAVIOURS)
def test_what_is_wrong_once_is_asked_again(reason):
    def answer(handler, number):
        (MISBEHAVIOURS[reason] if number == 1 else good)(handler, number)

    slow = reason.startswith("timeout")
    with Site(answer) as site:
        assert ask(site, timeout=0.5 if slow else 30.0) == [["a red square"]]
        first, second = (json.loads(one) for one in site.bodies)
    assert first.pop("seed") != second.pop("seed")  # or a refusal would come again
    assert first == second


@pytest.mark.parametrize("reason", MISBEHAVIOURS)
def test_what_stays_wrong_is_given_up_with_its_reason(reason):
    slow = reason.startswith("timeout")
    images = []

    def answer(handler, number):
        images.append(image_of(handler))
        (MISBEHAVIOURS[reason] if images[-1] == images[0] else good)(handler, number)

    with Site(answer) as site:
        (found,) = ask(site, timeout=0.4 if slow else 30.0)
    assert isinstance(found, str)
    assert found.startswith(reason)
    assert images.count(images[0]) == 3
    # Where the server is at fault it is asked once about a blank image: is it still there?
    by_server = reason.startswith(("status", "timeout", "answer")) and "max_tokens" not in reason
    assert len(images) == 3 + by_server


def test_a_request_that_the_server_does_not_take_is_not_repeated():
    with Site(answers(b"image too small", 400)) as site:
        assert ask(site) == ["status 400: image too small"]
        assert len(site.requests) == 1


def test_the_server_says_how_long_to_wait():
    def answer(handler, number):
        if number == 1:
            send(handler, b"", 429, retry_after=1)
        else:
            good(handler, number)

    with Site(answer) as site:
        begin = time.monotonic()
        assert ask(site, backoff=0.0) == [["a red square"]]
        assert time.monotonic() - begin >= 1
    assert seconds_of("2.5") == 2.5
    assert 50 < seconds_of(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert seconds_of("soon") is None


def test_many_requests_are_in_flight_and_no_more_than_allowed():
    flying, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(4, timeout=30)

    def answer(handler, number):
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        together.wait()
        with lock:
            flying -= 1
        good(handler, number)

    with Site(answer) as site:
        options = {"num_captions": 2}
        assert ask(site, 4, options, in_flight=4) == [["a red square"] * 2] * 4
    assert most == 4


def test_each_text_has_a_seed_of_its_own_that_is_the_same_in_another_run():
    seeds = []
    for _ in range(2):
        with Site(good) as site:
            ask(site, 2, {"num_captions": 2})
            seeds.append(sorted(json.loads(body)["seed"] for body in site.bodies))
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 4


def test_a_server_that_is_not_there_or_does_nothing_right_ends_the_run():
    with Site(good) as site:
        pass
    with pytest.raises(DownloadError, match="cannot be reached"):
        ask(site, retries=1)
    with (
        Site(answers(b"oh no", 500)) as site,
        pytest.raises(DownloadError, match=r"\d+ requests in a row failed, the last: status 500"),
    ):
        ask(site, 12, retries=0)
    with (
        Site(answers(b"oh no", 500)) as site,
        pytest.raises(DownloadError, match="a blank image fails, too, the last: status 500"),
    ):
        ask(site, 1, retries=0)


@pytest.mark.parametrize(("status", "asked"), [(401, "the key"), (404, "the address or the model")])
def test_a_wrong_key_address_or_model_ends_the_run_at_once(status, asked):
    with (
        Site(answers(b"unknown", status)) as site,
        pytest.raises(ConfigError, match=f"answers {status}: unknown. Is {asked} right"),
    ):
        ask(site)
    assert len(site.requests) == 1


def test_a_redirect_is_not_followed_with_the_key():
    with (
        Site(answers(b"", 307, location="http://localhost:1/v1")) as site,
        pytest.raises(ConfigError, match="redirects to"),
    ):
        ask(site)


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("MY_SERVER", raising=False)
    with Site(good) as site:
        with pytest.raises(ConfigError, match="the environment has no MY_SERVER"):
            endpoint(site, key_from="MY_SERVER")
        monkeypatch.setenv("MY_SERVER", KEY)
        ask(site, key_from="MY_SERVER")
        assert site.requests[0][1]["Authorization"] == f"Bearer {KEY}"


def test_pixels_are_taken_as_well(monkeypatch):
    with Site(good) as site:
        model = endpoint(site)
        texts = model.generate({"image": torch.rand(2, 3, 8, 8)}, num_captions=2)
        assert texts == ["a red square"] * 4
    with Site(answers(said(""))) as site, pytest.raises(DataError, match="empty answer"):
        endpoint(site).generate({"image": torch.rand(1, 3, 8, 8)})


def run_with(capfilt, site, name="out", *overrides):
    captioner = {"name": "endpoint", "url": site.url("v1"), "model": "qwen", "image_size": 8}
    captioner |= {"retries": 1, "backoff": 0.0, "in_flight": 2, "key_from": "MY_SERVER"}
    return capfilt(name, f"captioner={json.dumps(captioner)}", *overrides)


def test_a_run_keeps_the_pairs_whose_caption_is_refused(capfilt, records, monkeypatch, caplog):
    monkeypatch.setenv("MY_SERVER", KEY)
    seen = []

    def answer(handler, number):
        image = image_of(handler)
        if image not in seen[:2]:
            seen.append(image)
        refused = image in seen[:2]
        send(handler, said(f"I'm sorry, {KEY}" if refused else "a red square"))

    caplog.set_level(logging.DEBUG)
    with Site(answer) as site:
        folder = run_with(capfilt, site, "out", "data.batch_size=1", "captioner.in_flight=1")
        calls = len(site.requests)
        run_with(capfilt, site, "out", "data.batch_size=1", "captioner.in_flight=1")
        assert len(site.requests) == calls == 24 + 2
        moved = site.url("elsewhere")
        run_with(capfilt, site, "out", "data.batch_size=1", f"captioner.url={moved}")
        with pytest.raises(ConfigError, match=r"captioner\.prompt"):
            run_with(capfilt, site, "out", "data.batch_size=1", "captioner.prompt=Hm?")
    found = records(folder)
    assert len(found) == 24
    assert [len(record["synthetic"]) for record in found] == [0, 0] + [1] * 22
    lines = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [line["captioner"] for line in lines] == ["captioner"] * 2
    assert all(line["reason"].startswith("refusal: I'm sorry, REDACTED") for line in lines)
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["uncaptioned"] == {"captioner": {"refusal": 2}}
    assert (stats["images"], stats["unreadable"]) == (24, {})
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY.encode() not in written
    assert KEY not in caplog.text


def test_a_server_that_goes_away_leaves_no_half_shard_and_the_run_goes_on(
    capfilt, digests, monkeypatch
):
    monkeypatch.setenv("MY_SERVER", KEY)
    with Site(good) as site:
        expected = digests(run_with(capfilt, site, "whole"))

    def dies(handler, number):
        (good if number < 12 else answers(b"oh no", 500))(handler, number)

    with Site(dies) as site, pytest.raises(DownloadError, match="start again"):
        run_with(capfilt, site, "out")
    with Site(good) as site:
        assert digests(run_with(capfilt, site, "out")) == expected
        assert len(site.requests) == 16  # two of three shards


def test_a_server_stands_beside_a_model_in_a_list(capfilt, records):
    with Site(good) as site:
        server = {"name": "endpoint", "url": site.url("v1"), "model": "qwen", "called": "qwen"}
        listed = json.dumps([{"name": "toy_captioner"}, server])
        folder = capfilt("out", f"captioner={listed}", "data.source.size=4")
    for record in records(folder):
        assert record["sources"] == ["toy_captioner", "qwen"]
        assert record["synthetic"][1] == "a red square"
