"""Keep private data out of a published model: absolute paths, server addresses, keys.

The run's configuration is rewritten. Other text files are searched, and a match stops the push.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError

_SEGMENT = r"[^\s\\/:,;'\"<>|@]+"
_ABSOLUTE = re.compile(
    rf"(?<![\w.<~-])(?:~?/(?:{_SEGMENT}/)*(?P<name>{_SEGMENT})/?|[A-Za-z]:\\(?:{_SEGMENT}\\)*(?P<windows>{_SEGMENT})\\?)"
)
_URL = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s,;'\"<>]+")
_SECRET_KEY = re.compile(r"(?:token|(?:api|access)_?key|passw(?:or)?d|secret(?:_key)?)$", re.IGNORECASE)
# A tokenizer's settings end in "token", too. Listed names pass; the value of any other must look like a special token.
_TEXT_TOKEN_KEY = re.compile(r"(?:^|_)(?:bos|eos|boi|eoi|pad|unk|sep|cls|mask|image|video|audio)_token$")
_TEXT_TOKEN = re.compile(r"</?[^\s<>]+>|\[/?[A-Z_]+\]")
_SECRETS = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16})\b")
_SEARCHED = (".json", ".jinja", ".yaml", ".md")
_MOST = 2_000_000  # bytes: a larger file is a tokenizer's vocabulary, which holds no paths


def scrub(value: Any, key: str = "") -> Any:
    """Return a configuration value without absolute paths, addresses and keys.

    A path keeps its last part, an address becomes ``<address>``, and the value of a key such as ``hub_token`` becomes
    None.
    """
    if isinstance(value, dict):
        return {name: scrub(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [scrub(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if _is_secret(key, value):
        return None
    if Path(value).is_absolute():
        return Path(value).name
    text = _SECRETS.sub("<secret>", _URL.sub("<address>", value))
    return _ABSOLUTE.sub(lambda match: match["name"] or match["windows"], text)


def _is_secret(key: str, value: str) -> bool:
    """Say whether a setting's name marks a key or password; ``eos_token`` and the like are tokenizer settings."""
    if not _SECRET_KEY.search(key):
        return False
    return not (_TEXT_TOKEN_KEY.search(key) or (key.endswith("token") and _TEXT_TOKEN.fullmatch(value)))


def require_clean(name: str, content: Path | bytes, private: list[str]) -> None:
    """Search a file before it is published.

    ``private`` are texts that must not be in it, such as the home folder.

    Raises:
        UserError: it contains one of them, or something that looks like an access token.
    """
    if not name.endswith(_SEARCHED):
        return
    if isinstance(content, Path) and content.stat().st_size > _MOST:
        return
    text = (content.read_bytes() if isinstance(content, Path) else content).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECRETS.search(line):
            raise UserError(
                f"{name}, line {number}: contains what looks like an access token ({match[0][:6]}...); remove it."
            )
        if found := next((path for path in private if path in line), None):
            raise UserError(f"{name}, line {number}: contains the local path {found}; remove it.")


def private_texts(folder: Path) -> list[str]:
    """Return the paths that must not be published: the home and working folders, the model's folder and its parent."""
    paths = {Path.home(), Path.cwd(), folder.resolve(), folder.resolve().parent}
    # "/" and "/root" on their own occur in too many harmless texts.
    return sorted(str(path) + "/" * (len(path.parts) <= 2) for path in paths if len(path.parts) > 1)
