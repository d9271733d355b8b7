"""Which requests go through a proxy (``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).

Requests to a server on this machine (``localhost``, ``127.x.x.x``, ``::1``) never do: a proxy elsewhere would look for
the server on its own machine. Requests to any other server use the proxy set in the environment, unless ``NO_PROXY``
lists the host; error messages then name both variables.
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
    # Without the environment the library would also ignore the user's own certificates.
    return {"trust_env": False, **({"verify": ssl.create_default_context()} if parts.scheme == "https" else {})}


def is_here(host: str) -> bool:
    """Return whether a host name refers to this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_advice(url: str) -> str:
    """Return advice about the proxy used for ``url``, starting with "; "; empty if there is none."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    if is_here(host) or not (proxy := proxies.get(scheme)) or proxy_bypass(host):
        return ""
    name = next((name for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()) if os.environ.get(name)), None)
    where = f"the proxy {_without_password(proxy)} ({name or 'system settings'})"
    return f"; requests go through {where}: if none is needed, add {host} to NO_PROXY, otherwise check the proxy"


def _without_password(proxy: str) -> str:
    return proxy.rpartition("@")[2].rpartition("://")[2]
