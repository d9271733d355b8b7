"""All limits and permissions of the server."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.settings import Settings


class ServerSettings(Settings):
    """Limits and permissions of the server; raises UserError if one is invalid."""

    model_name: str = Field(default="reward model", description="Name of the model in ``/health``.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; any but loopback needs a key.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    api_key: str | None = Field(
        default=None, description="Key that requests must send as ``Authorization: Bearer``; None requires no key."
    )
    insecure: bool = Field(default=False, description="Allow an address that others can reach, without a key.")
    allow_folders: tuple[Path, ...] = Field(
        default=(), description="Folder from which requests may name pictures; repeatable."
    )
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="Host or host:port from which requests may name pictures; repeatable."
    )
    max_body_mb: float = Field(default=32.0, gt=0, allow_inf_nan=False, description="Maximum request body, in MiB.")
    max_pixels: int = Field(default=16_777_216, gt=0, description="Maximum pixels in all pictures of a request.")
    max_images: int = Field(default=16, gt=0, description="Maximum pictures in a request.")
    max_parts: int = Field(default=64, gt=0, description="Maximum parts of a question or response.")
    max_candidates: int = Field(default=64, gt=0, description="Maximum responses to one question.")
    max_responses: int = Field(default=16_384, gt=0, description="Maximum responses in a request.")
    max_votes: int = Field(default=16, gt=0, description="Maximum votes per order.")
    max_judgments: int = Field(
        default=65_536, gt=0, description="Maximum judgments in a request: pairs x votes x orders."
    )
    max_chars: int = Field(
        default=MAX_RESPONSE_CHARS,
        gt=0,
        le=MAX_RESPONSE_CHARS,
        description="Maximum characters of a question or response; the default is also the upper bound.",
    )
    max_queue: int = Field(
        default=128,
        gt=0,
        description="Maximum requests in progress; further ones wait (``Prefer: wait``, trainers' routes) or get 429.",
    )
    max_waiting: int = Field(
        default=16_384, gt=0, description="Maximum requests whose groups are not yet answered; further ones get 429."
    )
    group_wait: float = Field(
        default=90.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a group waits for the rest of its samples; the clients' timeout must be longer.",
    )
    group_size: int | None = Field(
        default=None, ge=2, description="Rollouts per prompt, which NeMo Gym's /verify does not send; default unknown."
    )
    timeout: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a request may take, queueing included; a group's time starts at its last sample.",
    )
    max_batch: int = Field(default=64, gt=0, description="Maximum comparisons per batch.")
    batch_wait_ms: float = Field(
        default=5.0, ge=0, allow_inf_nan=False, description="Milliseconds a comparison waits for others to batch with."
    )
    unscored_reward: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Reward that /get_reward (default null) and /remote_rm (default -1) return if there is none.",
    )

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: str | None) -> str | None:
        if key is not None and not (key.strip() and key.isascii()):
            raise ValueError("is blank or contains characters that an HTTP header cannot carry; choose another key.")
        return key

    @field_validator("allow_folders")
    @classmethod
    def _folders(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: not a directory; name one whose pictures requests may read.")
        return folders

    @field_validator("allow_hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or any(character in host for character in "/@? "):
                raise ValueError(f"{host!r}: not a host; give a name or name:port, without http://.")
        return hosts

    @model_validator(mode="after")
    def _guarded(self) -> ServerSettings:
        if self.api_key is None and not self.insecure and not _is_loopback(self.host):
            raise ValueError(f"{self.host} can be reached from other machines: {self._ways_to_guard}.")
        return self

    @property
    def _ways_to_guard(self) -> str:
        return "set a key with --api-key-env, or accept requests from anyone with --insecure"

    @property
    def max_body(self) -> int:
        """Maximum request body, in bytes."""
        return int(self.max_body_mb * 2**20)


class PageSettings(ServerSettings):
    """The same for the web page, which never requires a key."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; any but loopback needs --insecure.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    insecure: bool = Field(default=False, description="Allow an address that others can reach: anyone can judge.")

    @property
    def _ways_to_guard(self) -> str:
        return "the page has no key; accept requests from anyone with --insecure"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
