"""What the server may do and how much of it: every limit in one place."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.settings import Settings


class ServerSettings(Settings):
    """Limits and permissions of the server; raises UserError where one makes no sense."""

    model_name: str = Field(default="reward model", description="What ``/health`` calls the model.")
    host: str = Field(default="127.0.0.1", description="Address to listen at; others than loopback need a key.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen at; 0 takes any free one.")
    api_key: str | None = Field(
        default=None, description="What requests must bring as ``Authorization: Bearer``; None asks for nothing."
    )
    insecure: bool = Field(default=False, description="Listen at an address others can reach, without a key.")
    allow_folders: tuple[Path, ...] = Field(
        default=(), description="Requests may name pictures in it; may be repeated."
    )
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="Host, or host:port: requests may name pictures on it; may be repeated."
    )
    max_body_mb: float = Field(default=32.0, gt=0, allow_inf_nan=False, description="Largest request body, in MiB.")
    max_pixels: int = Field(default=16_777_216, gt=0, description="Most pixels of a request's pictures together.")
    max_images: int = Field(default=16, gt=0, description="Most pictures of a request.")
    max_parts: int = Field(default=64, gt=0, description="Most parts of a question or response.")
    max_candidates: int = Field(default=64, gt=0, description="Most responses to one question.")
    max_responses: int = Field(default=16_384, gt=0, description="Most responses of a request.")
    max_votes: int = Field(default=16, gt=0, description="Most votes for each order shown.")
    max_judgments: int = Field(
        default=65_536, gt=0, description="Most judgements of a request: pairs times votes times orders."
    )
    max_chars: int = Field(
        default=MAX_RESPONSE_CHARS,
        gt=0,
        le=MAX_RESPONSE_CHARS,
        description="Longest question or response, in characters; no more than a judge's prompt has room for.",
    )
    max_queue: int = Field(default=128, gt=0, description="Most requests under way or waiting; more get 429.")
    max_waiting: int = Field(
        default=16_384, gt=0, description="Most requests whose groups are not yet answered; more get 429."
    )
    group_wait: float = Field(
        default=90.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a group waits for the rest of its samples; trainers' clients must wait for longer.",
    )
    group_size: int | None = Field(
        default=None, ge=2, description="Rollouts of each prompt, as NeMo Gym's /verify does not say; default unknown."
    )
    timeout: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a request may take, waiting for a free judge included; a group from its last sample on.",
    )
    max_batch: int = Field(default=64, gt=0, description="Most comparisons judged together.")
    batch_wait_ms: float = Field(
        default=5.0, ge=0, allow_inf_nan=False, description="Milliseconds a comparison waits for company."
    )
    unscored_reward: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="What /get_reward (default null) and /remote_rm (default -1) give where there is no reward.",
    )

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: str | None) -> str | None:
        if key is not None and not (key.strip() and key.isascii()):
            raise ValueError("is blank or has characters that no HTTP header takes; choose another.")
        return key

    @field_validator("allow_folders")
    @classmethod
    def _folders(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: is not a folder; name one whose pictures may be read.")
        return folders

    @field_validator("allow_hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or any(character in host for character in "/@? "):
                raise ValueError(f"{host!r}: is not a host; give a name or name:port, without http://.")
        return hosts

    @model_validator(mode="after")
    def _guarded(self) -> ServerSettings:
        if self.api_key is None and not self.insecure and not _is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines: name a key with --api-key-env, "
                "or accept requests from anybody with --insecure."
            )
        return self

    @property
    def max_body(self) -> int:
        """Largest request body, in bytes."""
        return int(self.max_body_mb * 2**20)


class PageSettings(ServerSettings):
    """The same for the web page, which asks nobody for a key."""

    host: str = Field(default="127.0.0.1", description="Address to listen at; others than loopback need --insecure.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port to listen at; 0 takes any free one.")
    insecure: bool = Field(default=False, description="Listen at an address others can reach: anybody may judge.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
