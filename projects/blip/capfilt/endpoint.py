"""endpoint: any server that speaks OpenAI's chat completions as a captioner.

vLLM, SGLang, llama.cpp, Ollama and the paid services do. Images travel as data URLs.
"""

from __future__ import annotations

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, DownloadError
from lavis_lite.modules.output import Samples
from lavis_lite.projects.blip.capfilt.chat import Chat, Failed

_MOST_FAILURES = 8  # requests that fail one after the other, each tried often enough
_QUALITY = 90  # of the JPEG that is sent


@registry.register("model", "endpoint")
class Endpoint(nn.Module):
    """A captioner behind an address; for captioning, not for training.

    Model, prompt, system message, image size and refusals are a part of a run's fingerprint, with
    what `generate` is given; the address, the key and how patient the client is are not. Answers
    are the server's: the same seed gives the same text only where the server holds to it.

    Args:
        url: of the server, up to and with ``/v1``.
        model: its name on the server.
        prompt: what it is asked about each image.
        system: a system message; empty sends none.
        key_from: the environment variable that holds the key; None sends none. The key itself is
            never written down.
        image_size: longest side in pixels of an image that is sent; smaller ones are sent as large
            as they are.
        in_flight: requests at a time, of each worker.
        retries: how often a request is repeated that was refused, failed or answered badly.
        timeout: seconds for an answer.
        backoff: seconds before the first repetition; doubled each time, or as the server asks.
        refusals: beginnings of answers that are refusals, in any case of letters.

    Raises:
        ConfigError: the environment has no key, or a number is out of range.
    """

    reads_pictures = True
    without_effect = ("url", "key_from", "in_flight", "retries", "timeout", "backoff")
    image_mean = (0.0, 0.0, 0.0)  # where it is handed pixels, they are in [0, 1]
    image_std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        url: str,
        model: str,
        prompt: str = "Describe the image in one sentence.",
        system: str = "",
        key_from: str | None = None,
        image_size: int = 768,
        in_flight: int = 16,
        retries: int = 5,
        timeout: float = 120.0,
        backoff: float = 1.0,
        refusals: tuple[str, ...] | list[str] = (
            "I'm sorry", "I’m sorry", "Sorry,", "I cannot", "I can't", "I can’t", "I am unable",
            "I'm unable", "As an AI",
        ),
    ) -> None:  # fmt: skip
        super().__init__()
        numbers = {"image_size": image_size, "in_flight": in_flight, "timeout": timeout}
        for name, number in numbers.items():
            if number <= 0:
                raise ConfigError(f"endpoint.{name}: {number}; above 0")
        if retries < 0 or backoff < 0:
            raise ConfigError("endpoint.retries, endpoint.backoff: at least 0")
        self.model, self.prompt, self.system = model, prompt, system
        self.image_size, self.in_flight = image_size, in_flight
        self._chat = Chat(url, key_from, retries, timeout, backoff, tuple(refusals))
        self._in_a_row, self._counting = 0, threading.Lock()

    def generate(
        self,
        samples: Samples,
        num_captions: int = 1,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_tokens: int = 80,
        extra: dict[str, Any] | None = None,
        *,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Texts about images.

        Args:
            samples: ``image`` (B, 3, H, W), pixels in [0, 1].
            num_captions: texts per image, each asked for by itself.
            temperature: of sampling.
            top_p: smallest probability mass that sampling draws from, in (0, 1].
            max_tokens: of an answer; one that is longer is cut, and counts as none.
            extra: further fields of a request, such as ``top_k``.
            seeds: one per image.

        Returns:
            B * num_captions texts, image-major.

        Raises:
            DataError: there is no answer about one of them.
            DownloadError: the server cannot be reached, or nothing succeeds.
        """
        pixels = (samples["image"].float() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        pictures = [_picture(one) for one in pixels]
        drawn = seeds or torch.randint(2**62, (len(pictures),)).tolist()
        answers = self.ask(pictures, drawn, num_captions, temperature, top_p, max_tokens, extra)
        texts: list[str] = []
        for answer in answers:
            if isinstance(answer, str):
                raise DataError(f"{self._chat.url}: {answer}")
            texts += answer
        return texts

    def ask(
        self,
        pictures: list[Image.Image],
        seeds: list[int],
        num_captions: int = 1,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_tokens: int = 80,
        extra: dict[str, Any] | None = None,
    ) -> list[list[str] | str]:
        """The texts about each image, or the reason why there is none.

        Args:
            pictures: B images.
            seeds: one for each.
            num_captions, temperature, top_p, max_tokens, extra: see `generate`.

        Raises:
            ConfigError: the server does not know the model, the address or the key.
            DownloadError: the server cannot be reached, or nothing succeeds.
        """
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.in_flight, thread_name_prefix="endpoint")
        try:
            asked = []
            for picture, seed in zip(pictures, seeds, strict=True):
                messages = self._messages(picture)
                body = {**(extra or {}), "model": self.model, "messages": messages, **sampling}
                asked.append(
                    [
                        pool.submit(self._one, body, stable_hash("text", seed, number), stop)
                        for number in range(num_captions)
                    ]
                )
            answers = [_together([one.result() for one in own]) for own in asked]
            if self._in_a_row:
                self._probe({"model": self.model, **sampling}, stop)
            return answers
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _probe(self, body: dict[str, Any], stop: threading.Event) -> None:
        """Ask about a blank image: was it the images that failed, or has the server gone?

        Raises:
            DownloadError: it has gone, so that what failed may succeed another time.
        """
        blank = Image.new("RGB", (self.image_size, self.image_size), "white")
        answer = self._chat.ask({**body, "messages": self._messages(blank)}, 0, stop)
        if isinstance(answer, Failed) and answer.by_server:
            raise DownloadError(_gone(self._chat.url, "a blank image fails, too", answer))
        self._in_a_row = 0

    def _one(self, body: dict[str, Any], seed: int, stop: threading.Event) -> str | Failed:
        answer = self._chat.ask(body, seed, stop)
        failed = isinstance(answer, Failed) and answer.by_server
        with self._counting:
            self._in_a_row = self._in_a_row + 1 if failed else 0
            if self._in_a_row >= _MOST_FAILURES:
                assert isinstance(answer, Failed)
                what = f"{self._in_a_row} requests in a row failed"
                raise DownloadError(_gone(self._chat.url, what, answer))
        return answer

    def _messages(self, picture: Image.Image) -> list[dict[str, Any]]:
        small = picture.convert("RGB")
        small.thumbnail((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=_QUALITY)
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": self.prompt},
        ]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]


def _gone(url: str, what: str, last: Failed) -> str:
    return (
        f"{url}: {what}, the last: {last.reason}. Nothing of this shard is written; start again "
        "when the server is well"
    )


def _together(answers: list[str | Failed]) -> list[str] | str:
    """The texts of one image; the first reason where one is missing, so that places stay."""
    failed = [one.reason for one in answers if isinstance(one, Failed)]
    return failed[0] if failed else [one for one in answers if isinstance(one, str)]


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
