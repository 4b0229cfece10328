"""Redaction of secrets in configs, command lines and log lines.

A config may need a token, a password or a signed URL to reach its data. Runs, checkpoints, cards
and reports are copied and published, so none of them may hold it. Everything that writes a config
gets it from `lavis_lite.config.to_dict`, which calls `redacted`; what is logged or shown goes
through `redacted_words` or `redacted_urls`. Imports no torch.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable
from typing import Any

REDACTED = "REDACTED"

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SECRETS = {
    *("password", "passwd", "passphrase", "pwd", "secret", "secrets", "apikey", "accesskey"),
    *("credential", "credentials", "authorization", "bearer", "cookie", "signature"),
}
# `key` alone is a sample's name, `token` after one of these a piece of text.
_KEYS_TO = {"api", "access", "secret", "private", "signing", "encryption", "account", "session"}
_TOKENS_OF = {
    *("pad", "cls", "mask", "sep", "unk", "bos", "eos", "eot", "start", "end", "enc", "dec"),
    *("class", "reg", "register", "pool", "pooling", "dist", "prefix", "special", "image", "text"),
    *("vision", "query", "first", "last", "next", "num", "max", "min", "per", "word", "decoder"),
    *("video", "audio", "prompt", "sos", "sot"),
}
_IN_QUERIES = {"sig", "sign", "token", "key", "auth", "policy", "jwt", "code"}

_URL = re.compile(
    r"(?P<scheme>(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{0,20}://)(?P<rest>[^\s'\"<>]*[^\s'\"<>:,.)])"
)
_PARAMETER = re.compile(r"(?P<before>[?&;#])(?P<name>[^=&;#?]+)=(?P<value>[^&;#]*)")
_NAMED = re.compile(r"(?P<name>[A-Za-z_][\w.\[\]-]*)['\"]?\s*[=:]\s*")
_OPTION = re.compile(r"--?[A-Za-z][\w-]*")


def redacted(tree: Any) -> Any:
    """Return a plain tree with ``REDACTED`` for values of secret keys and secrets in URLs.

    A URL loses only its password and the parameters that sign it, so that its file stays legible.
    Booleans and null are not secrets. Redacting twice changes nothing more.
    """
    if isinstance(tree, dict):
        return {k: _covered(v) if is_secret(k) else redacted(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [redacted(value) for value in tree]
    return redacted_urls(tree) if isinstance(tree, str) else tree


def is_secret(key: object) -> bool:
    """Tell whether a setting of this name, such as ``data.train[0].api_key``, is secret."""
    words = [word.lower() for word in _WORDS.findall(str(key).rpartition(".")[2])]
    if _SECRETS.intersection(words):
        return True
    if any(before in _KEYS_TO and word == "key" for before, word in itertools.pairwise(words)):
        return True
    return words[-1:] == ["token"] and not _TOKENS_OF.intersection(words[-2:-1])


def redacted_urls(text: str) -> str:
    """Return a text without the passwords and signatures of the URLs in it."""
    return _URL.sub(_redacted_url, text) if "://" in text else text


def redacted_words(words: Iterable[str]) -> list[str]:
    """Return the words of a command line without secrets in a word or in ``--key value``."""
    shown: list[str] = []
    before = ""
    for word in words:
        covered = _OPTION.fullmatch(before) and is_secret(before) and not _OPTION.fullmatch(word)
        shown.append(REDACTED if covered else redacted_word(word))
        before = word
    return shown


def redacted_word(word: str) -> str:
    """Cut a word of a command line at its first secret, ``key=`` or ``{key:``; redact its URLs."""
    word = redacted_urls(word)
    for match in _NAMED.finditer(word):
        if is_secret(match["name"]):
            return f"{word[: match.end()]}{REDACTED}"  # where a value ends, only YAML knows
    return word


class RedactingFormatter(logging.Formatter):
    """A formatter of log records, tracebacks included, without the secrets of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return redacted_urls(super().format(record))


def log_to_stderr(level: int, format: str = "%(message)s") -> None:
    """Let this process log to standard error, without the secrets of URLs."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(format))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _covered(value: object) -> object:
    """Redact every text and number in a secret value."""
    if isinstance(value, dict):
        return {k: _covered(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_covered(v) for v in value]
    return value if value is None or isinstance(value, bool) else REDACTED


def _redacted_url(match: re.Match[str]) -> str:
    site, slash, path = re.match(r"([^/?#]*)([/?#]?)(.*)", match["rest"], re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in site:
        site = f"{REDACTED}@{site.rpartition('@')[2]}"
    return f"{match['scheme']}{site}{_PARAMETER.sub(_redacted_parameter, slash + path)}"


def _redacted_parameter(match: re.Match[str]) -> str:
    words = (word.lower() for word in _WORDS.findall(match["name"]))
    if is_secret(match["name"]) or _IN_QUERIES.intersection(words):
        return f"{match['before']}{match['name']}={REDACTED}"
    return match[0]
