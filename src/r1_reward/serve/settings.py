"""What the server may do and how much of it: every limit in one place."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.errors import UserError


@dataclass(frozen=True)
class ServerSettings:
    """Limits and permissions of the server; raises UserError where one makes no sense."""

    model_name: str = "reward model"
    """What ``/health`` calls the model."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at; 0 takes any free one."""
    api_key: str | None = None
    """What requests must bring as ``Authorization: Bearer``; None asks for nothing."""
    insecure: bool = False
    """Allow an address that others can reach although there is no key."""
    allow_folders: tuple[Path, ...] = ()
    """Folders whose pictures a request may name by path."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts, or host:port, whose pictures a request may name by URL."""
    max_body_mb: float = 32.0
    """Largest request body, in MiB."""
    max_pixels: int = 16_777_216
    """Most pixels of all pictures of a request together."""
    max_images: int = 16
    """Most pictures of a request."""
    max_candidates: int = 64
    """Most responses to one question."""
    max_responses: int = 16_384
    """Most responses of a request, which may ask more than one question in the OpenRLHF protocol."""
    max_votes: int = 16
    """Most votes for each order shown."""
    max_judgments: int = 65_536
    """Most judgements of a request: pairs of responses times votes times orders shown."""
    max_chars: int = MAX_RESPONSE_CHARS
    """Longest question or response, in characters."""
    max_queue: int = 128
    """Most requests under way or waiting; the next one is refused with 429."""
    timeout: float = 300.0
    """Seconds a request may take, waiting included."""
    max_batch: int = 64
    """Most comparisons that go to the model together."""
    batch_wait_ms: float = 5.0
    """Milliseconds a comparison waits for others to share its batch."""
    unscored_reward: float | None = None
    """What the OpenRLHF protocol gives where there is no reward; None is JSON's null."""

    def __post_init__(self) -> None:
        positive = ("max_body_mb", "max_pixels", "max_images", "max_candidates", "max_responses")
        for name in (*positive, "max_votes", "max_judgments", "max_chars", "max_queue", "timeout", "max_batch"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}: must be more than 0, not {getattr(self, name)}.")
        if not 0 <= self.batch_wait_ms < math.inf:
            raise UserError(f"batch_wait_ms: must be 0 or more, not {self.batch_wait_ms}.")
        if self.max_chars > MAX_RESPONSE_CHARS:
            raise UserError(
                f"max_chars: at most {MAX_RESPONSE_CHARS:,}, the longest text a judge's prompt has room for."
            )
        if not 0 <= self.port < 65536:
            raise UserError(f"port: must be 0 to 65535, not {self.port}.")
        if self.unscored_reward is not None and not math.isfinite(self.unscored_reward):
            raise UserError(f"unscored_reward: must be a finite number, not {self.unscored_reward}.")
        if self.api_key is not None and not (self.api_key.strip() and self.api_key.isascii()):
            raise UserError("the API key is blank or has characters that no HTTP header takes; choose another.")
        for folder in self.allow_folders:
            if not Path(folder).is_dir():
                raise UserError(f"{folder}: is no folder; --allow-folder names one whose pictures may be read.")
        for host in self.allow_hosts:
            if not host or any(character in host for character in "/@? "):
                raise UserError(f"{host!r}: is no host; --allow-host takes a name or name:port, without http://.")
        if self.api_key is None and not self.insecure and not _is_loopback(self.host):
            raise UserError(
                f"{self.host} can be reached from other machines: name a key with --api-key-env, "
                "or accept requests from anybody with --insecure."
            )

    @property
    def max_body(self) -> int:
        """Largest request body, in bytes."""
        return int(self.max_body_mb * 2**20)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
