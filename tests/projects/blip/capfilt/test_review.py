"""What the server of a review answers, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import subprocess
import sys

import numpy
import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_lite.cli import main
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.labels import read_labels
from lavis_lite.projects.blip.capfilt.review import command, guard
from lavis_lite.projects.blip.capfilt.review.index import TextIndex
from lavis_lite.projects.blip.capfilt.review.judgements import Judgements
from lavis_lite.projects.blip.capfilt.review.queue import Choice, queue
from tests.projects.blip.capfilt.reviewed import served, served_app

pytest.importorskip("uvicorn", reason="the extra `app` is not installed")


@pytest.fixture
def run(capfilt):
    return capfilt("out", "captioner.generate={num_captions: 2}")


def label(server, record=0, place=0, word="fits", labeller="anna", note=""):
    values = {"record": record, "place": place, "label": word, "labeller": labeller, "note": note}
    return server.ask("/api/label", values)


# ---- the index


def test_the_index_has_every_text_with_its_score_where_its_record_lies(run, records):
    index = TextIndex(run)
    wanted = records(run)
    assert index.num_records == len(wanted) == 24
    for number in (0, 7, 8, 23):
        record = wanted[number]
        found = index.texts(number)
        assert [text.text for text in found] == [record["web_text"], *record["synthetic"]]
        scores = [record["scores"]["web"], *record["scores"]["synthetic"]]
        assert [text.scores["itm"] for text in found] == scores
        assert index.place(index.text(number, 2)) == (number, 2)
    assert index.text(0, 3) == -1
    assert index.number_of[wanted[9]["key"]] == 9
    assert index.of("web").sum() == 24
    assert index.of("synthetic").sum() == index.of("captioner").sum() == 48


def test_a_key_that_another_shard_has_too_gets_its_row(capfilt):
    folder = capfilt("out", "data.source={name: toy_pairs, same_key: [16]}")
    assert TextIndex(folder).keys[16] == "pair-0#16"


def test_scores_that_were_added_later_are_texts_scores_too(run):
    index = TextIndex(run)
    index.scores["later"] = numpy.arange(72.0)
    assert [text.scores["later"] for text in index.texts(1)] == [3, 4, 5]
    index.scores["later"][4] = numpy.nan
    assert index.texts(1)[1].scores["later"] is None


def test_unknown_scores_and_sources_are_answered_with_the_nearest(run):
    index = TextIndex(run)
    with pytest.raises(DataError, match="Did you mean 'itm'"):
        index.score("itmm")
    with pytest.raises(DataError, match="Did you mean 'synthetic'"):
        index.of("syntetic")
    with pytest.raises(DataError, match="Did you mean 'kept'"):
        queue(index, Choice(reason="keptt"))
    with pytest.raises(DataError, match="Did you mean 'spread'"):
        Choice(order="spred")


# ---- the order


def test_texts_come_by_their_distance_from_the_cut(run):
    index = TextIndex(run)
    found = queue(index, Choice(score="itm", cut=0.6))
    distances = abs(index.scores["itm"][found] - 0.6)
    assert (numpy.diff(distances) >= 0).all()
    assert len(found) == 72 - numpy.isnan(index.scores["itm"]).sum()


def test_a_spread_sample_has_one_of_each_tenth_in_every_ten(run):
    index = TextIndex(run)
    found = queue(index, Choice(order="spread", score="itm"))
    ranks = numpy.argsort(numpy.argsort(index.scores["itm"][found], kind="stable"))
    tenths = (ranks * 10 // len(found))[:50].reshape(5, 10)
    assert all(len(set(row)) >= 9 for row in tenths)  # tenths of no whole size meet at their ends
    assert sorted(found) == sorted(queue(index, Choice(score="itm")))
    assert (found == queue(index, Choice(order="spread", score="itm"))).all()
    assert (found != queue(index, Choice(order="spread", score="itm", seed=1))).any()


def test_texts_are_chosen_by_source_verdict_and_words(run, records):
    index = TextIndex(run)
    rejected = queue(index, Choice("run", reason="score not above the threshold", of="web"))
    wanted = [
        n for n, r in enumerate(records(run)) if r["reason"]["web"].startswith("score not above")
    ]
    assert [index.place(number) for number in rejected] == [(n, 0) for n in wanted]
    found = queue(index, Choice("run", words="THING gree", of="web"))
    assert [index.place(n)[0] for n in found] == [
        n for n, r in enumerate(records(run)) if "green thing" in r["web_text"]
    ]


# ---- the server


def test_a_label_is_written_down_and_shown(run):
    with served(run) as server:
        status, pair, _ = label(server, 3, 1, "does not fit", note="<b>no</b>")
        assert status == 200
        assert pair["texts"][1]["labels"] == [
            {"label": "does not fit", "labeller": "anna", "note": "<b>no</b>"}
        ]
        before = server.ask("/api/queue?labeller=anna&order=run")[1]
        assert before["judged"] == 1
        assert [3, 1] not in before["texts"]
        assert [3, 1] in server.ask("/api/queue?labeller=bo&order=run")[1]["texts"]
    (written,) = read_labels(run)
    assert (written.key, written.place, written.source) == ("pair-3", 1, "captioner")
    assert written.text == TextIndex(run).texts(3)[1].text


def test_labels_of_another_process_are_seen_and_those_of_other_texts_are_not(run):
    with served(run) as server:
        Judgements(TextIndex(run)).add(2, 0, "fits", "bo", "")
        assert server.ask("/api/queue?labeller=bo")[1]["judged"] == 1
        assert server.ask("/api/pair?record=2")[1]["texts"][0]["labels"][0]["labeller"] == "bo"
    file = run / "labels" / "bo.jsonl"
    file.write_text(file.read_text().replace('"text": "', '"text": "another '))
    with served(run) as server:
        assert server.ask("/api/queue?labeller=bo")[1]["judged"] == 0


def test_a_cut_is_measured_by_the_labels(run):
    index = TextIndex(run)
    scores = index.scores["itm"]
    with served(run) as server:
        for number in numpy.flatnonzero(~numpy.isnan(scores)):
            word = "fits" if scores[number] > 0.6 else "does not fit"
            label(server, *index.place(int(number)), word)
        cut = server.ask("/api/cut?score=itm&cut=0.600001&of=all")[1]
        assert cut["precision"]["value"] == cut["recall"]["value"] == cut["auc"] == 1
        assert cut["precision"]["low"] < 1
        assert cut["kept"] == (scores >= 0.600001).sum() == cut["fit"]
        assert sum(cut["bars"]) == cut["texts"] == cut["judged"]
        assert cut["represented"] == pytest.approx(1)
        all_kept = server.ask("/api/cut?score=itm&cut=0&of=all")[1]
        assert all_kept["precision"]["value"] == pytest.approx(cut["fit"] / cut["judged"])
        web = server.ask("/api/cut?score=itm&cut=0&of=web")[1]
        assert web["texts"] == 24


def test_a_cut_that_is_taken_is_the_config_of_a_selection(run):
    with served(run) as server:
        taken = server.ask("/api/take", {"score": "itm", "cut": 0.25, "of": "web"})[1]
        path = taken["path"]
        config = OmegaConf.to_container(OmegaConf.load(path))
        assert config["_base_"] == "blip/select.yaml"
        assert config["data"]["records"] == str(run)
        assert config["rules"] == [{"score": "itm", "min": 0.25, "of": "web"}]
        assert path in taken["command"]
        status, answer, _ = server.ask("/api/take", {"score": "../x", "cut": 0, "of": "web"})
        assert status == 400
        assert "no score '../x'" in answer["error"]
        status, answer, _ = server.ask("/api/take", {"score": "itm", "cut": 0, "of": "captioner"})
        assert status == 400
        assert "not for those of 'captioner'" in answer["error"]


def test_pictures_come_from_the_source_or_the_run_s_own_tars(capfilt):
    with served(capfilt("plain")) as server:
        status, data, headers = server.ask("/images/5")
        assert (status, headers["content-type"]) == (200, "image/png")
        assert headers["cache-control"] == "private, max-age=600"
        assert server.ask("/api/run")[2]["cache-control"] == "no-store"
        assert Image.open(io.BytesIO(data)).getpixel((0, 0))[0] == 37 * 5 % 256
    folder = capfilt("tars", "output.images=true")
    job = json.loads((folder / "job.json").read_text())
    job["source"]["name"] = "gone"
    (folder / "job.json").write_text(json.dumps(job))
    kept = [n for n, one in enumerate(TextIndex(folder).keys) if any_kept(folder, n)]
    with served(folder) as server:
        data = server.ask(f"/images/{kept[-1]}")[1]
        assert Image.open(io.BytesIO(data)).getpixel((0, 0))[0] == 37 * kept[-1] % 256
        lost = next(n for n in range(24) if n not in kept)
        status, answer, _ = server.ask(f"/images/{lost}")
        assert status == 404
        assert "the run's source cannot be opened" in answer["error"]


def any_kept(folder, number):
    return any(text.kept for text in TextIndex(folder).texts(number))


@pytest.fixture
def photos(tmp_path, capfilt):
    """A run over a file of paths: of a picture, a link out of the folder, one with ``..``."""
    secret = tmp_path / "secret"
    source = tmp_path / "photos"
    for folder in (secret, source):
        folder.mkdir()
        Image.new("RGB", (8, 8), (9, 99, 199)).save(folder / "a.png")
    (source / "link.png").symlink_to(secret / "a.png")
    rows = [{"image": path, "caption": "x"} for path in ("a.png", "link.png", "../secret/a.png")]
    (source / "rows.json").write_text(json.dumps(rows))
    data = f"data.source={{name: json, path: {source}/rows.json, images: {source}}}"
    return capfilt("out", data), secret


def test_files_outside_the_source_s_folders_are_not_shown(photos):
    folder, secret = photos
    with served(folder) as server:
        assert [server.ask(f"/images/{n}")[0] for n in range(3)] == [200, 404, 404]
        assert f"--images {secret}" in server.ask("/images/1")[1]["error"]
        for path in ("/images/9", "/images/-1", "/images/../../etc/passwd", "/images/%2e%2e/x"):
            assert server.ask(path)[0] == 404
    with served(folder, images=(str(secret),)) as server:
        assert [server.ask(f"/images/{n}")[0] for n in range(3)] == [200, 200, 200]


def test_a_path_that_was_put_into_the_records_is_not_followed(photos):
    folder, secret = photos
    shard = folder / "shards" / "shard-000000.jsonl"
    first, *rest = shard.read_text().splitlines(keepends=True)
    record = json.loads(first) | {"image": str(secret / "a.png")}
    shard.write_text("".join([json.dumps(record) + "\n", *rest]))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(secret.parent / "photos" / "a.png")
    with served(folder) as server:
        data = server.ask("/images/0")[1]
        assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"record": 99}, "no record 99"),
        ({"record": "x"}, "a number is expected"),
        ({"record": float("inf")}, "is no number"),
        ({"place": 7}, "has 3 texts, none at place 7"),
        ({"label": "fit"}, "Did you mean 'fits'"),
        ({"labeller": "../../bo"}, "take letters"),
        ({"note": 5}, "a text of at most"),
        ({"note": "x" * 3000}, "a text of at most"),
    ],
)
def test_what_is_no_label_is_refused_and_nothing_is_written(run, values, message):
    good = {"record": 0, "place": 0, "label": "fits", "labeller": "anna", "note": ""}
    with served(run) as server:
        status, answer, _ = server.ask("/api/label", good | values)
        assert status == 400
        assert message in answer["error"]
    assert not (run / "labels").exists()


# ---- who may ask


def test_every_answer_says_what_the_page_may_do(run):
    with served(run) as server:
        for path in ("/", "/review.js", "/page.css", "/api/run", "/images/0", "/nothing"):
            headers = server.ask(path)[2]
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "["])
def test_a_rebound_name_is_refused(run, host):
    with served(run) as server:
        assert server.ask("/api/run", headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "LOCALHOST:{}"])
def test_this_machine_s_names_are_answered(run, host):
    with served(run) as server:
        assert server.ask("/api/run", headers={"Host": host.format(server.port)})[0] == 200


def test_requests_of_other_pages_are_refused(run):
    body = {"record": 0, "place": 0, "label": "fits", "labeller": "a"}
    text = {"Content-Type": "text/plain"}
    with served(run) as server:
        assert server.ask("/api/label", body, {"Origin": "http://evil.example"})[0] == 403
        assert server.ask("/api/label", body, {"Origin": "null"})[0] == 403
        assert server.ask("/images/0", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
        assert server.ask("/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200
        assert server.ask("/api/label", json.dumps(body).encode(), text)[0] == 400
        own = {"Origin": f"http://127.0.0.1:{server.port}"}
        assert server.ask("/api/label", body, own)[0] == 200


def test_beyond_the_loopback_nothing_is_shown_without_the_token(run):
    with served(run, host="0.0.0.0", token="s3cret") as server:
        for path in ("/", "/api/run", "/images/0", "/review.js", "/?token=wrong", "/?token="):
            assert server.ask(path)[0] == 401
        assert server.ask("/api/run?token=s3cret")[0] == 401
        assert server.ask("/api/run", headers={"Cookie": "lavis_lite_review=wrong"})[0] == 401
        status, _, headers = server.ask("/?token=s3cret")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert server.ask("/", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
        bad = {"Cookie": cookie.partition(";")[0], "Host": "evil.example"}
        assert server.ask("/", headers=bad)[0] == 403
        good = {"Cookie": cookie.partition(";")[0], "Host": "192.168.7.7:80"}
        assert server.ask("/", headers=good)[0] == 200


def test_a_body_that_is_too_large_is_refused(run):
    with served(run) as server:
        large = b"x" * (guard.MOST_BYTES + 1)
        json_type = {"Content-Type": "application/json"}
        assert server.ask("/api/label", large, json_type)[0] == 413
        chunked = {**json_type, "Transfer-Encoding": "chunked"}
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
        assert server.ask("/api/label", chunk, chunked)[0] == 413
        assert server.ask("/api/label", b"[" * 5000, json_type)[0] == 400
        assert server.ask("/api/label", b"[]", json_type)[0] == 400


def test_what_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(guard, "MOST_SECONDS", 0.05)

    async def slow(scope, receive, send):
        await asyncio.sleep(60)

    with served_app(guard.Guard(slow, "127.0.0.1", None)) as server:
        assert server.ask("/")[0] == 503


# ---- the command


def test_a_port_in_use_is_said_with_the_next_free_one():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .* in use; (\d+) is free: --port \d+"):
            command.bound("127.0.0.1", port)


@pytest.mark.parametrize("where", [("no.such.host.invalid", 1), ("127.0.0.1", 99999)])
def test_an_address_that_is_none_is_said(where):
    with pytest.raises(ConfigError, match="cannot listen on"):
        command.bound(*where)


def test_the_address_has_the_token_beyond_the_loopback():
    assert command.address("127.0.0.1", 80, None) == "http://127.0.0.1:80/"
    assert command.address("::1", 80, None) == "http://[::1]:80/"
    shown = command.address("0.0.0.0", 80, "abc")
    assert shown == f"http://{socket.gethostname()}:80/?token=abc"


def test_without_the_server_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["review", str(tmp_path)]) == 2
    assert 'pip install "lavis_lite[app]"' in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_said(tmp_path, capsys):
    assert main(["review", str(tmp_path), "--port", "0"]) == 2
    assert "not the output of a bootstrapping run" in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """Let processes that a test starts be interrupted, also where this one ignores it (`&`)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_command_serves_until_it_is_interrupted(run):
    words = [sys.executable, "-m", "lavis_lite.cli", "review", str(run), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()  # a server that goes on would be waited for without end
