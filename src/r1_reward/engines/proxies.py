"""Proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) before a server.

A server on this machine (``localhost``, ``127.x.x.x``, ``::1``) is asked directly, whatever the environment says: a
proxy elsewhere would look for it on its own machine. Every other server is asked through the proxy that the
environment names, unless ``NO_PROXY`` has its host; what goes wrong then names both variables.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def client_options(url: str) -> dict[str, Any]:
    """Return the options of the HTTP library's client for a server at ``url``."""
    parts = urlsplit(url)
    if not is_here(parts.hostname or ""):
        return {}
    # Without the environment the library knows no certificates of one's own either.
    return {"trust_env": False, **({"verify": ssl.create_default_context()} if parts.scheme == "https" else {})}


def is_here(host: str) -> bool:
    """Say whether a host name is this machine's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_advice(url: str) -> str:
    """Return what to do about the proxy that a server at ``url`` is asked through, after "; "; empty without one."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    if is_here(host) or not (proxy := proxies.get(scheme)) or proxy_bypass(host):
        return ""
    name = next((name for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()) if os.environ.get(name)), None)
    where = f"the proxy {_without_password(proxy)} ({name or 'of the system'})"
    return f"; it is asked through {where}: if it needs none, add {host} to NO_PROXY, else see to the proxy"


def _without_password(proxy: str) -> str:
    return proxy.rpartition("@")[2].rpartition("://")[2]
