"""Checks whether the service can fetch a URL.

The service fetches ``source_url`` itself and refuses what is not public without a reason, so the reason is found
here, before anything is sent. No name is resolved: the service's view of the DNS is what counts, and a look-up
would reveal to our resolver what is being ingested.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from seedance_avatar.text import safe_text

MAX_URL: Final = 2048  # characters that a source URL may have at most; many servers refuse longer ones

# Matches nearly every valid URL; any other is checked part by part. Without ASCII, [a-z] would match the Kelvin sign
# and the long s, which a resolver maps to k and s.
_PLAIN = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?P<top>[a-z]{2,63})/[!-~]*", re.ASCII | re.IGNORECASE
)
_MAX_HOST: Final = 254  # RFC 1035: 253 and a closing dot

# What makes a second look worth its time. A URL within a URL follows a slash, a sign or an escape, as proxies of
# pictures have it; after a letter, a comma, a semicolon or a bar it is the next one of a list.
_DOUBTFUL = re.compile(
    r"[\w,;|]https?://|,(?:image|video|audio)\b|#|&amp;|(?:drive|docs)\.google\.com/|dropbox\.com/", re.IGNORECASE
)
_SEVERAL = re.compile(r"[\w,;|]https?://", re.IGNORECASE)
_ROW = re.compile(r"\.\w{3,4},(?:image|video|audio)(?:,|$)", re.IGNORECASE)
_NAME_AFTER_HASH = re.compile(
    r"#[^?]*\.(?:jpe?g|png|webp|bmp|tiff?|gif|hei[cf]|mp4|mov|m4v|webm|mp3|wav|m4a|aac)(?:$|\?)", re.IGNORECASE
)
_PAGE = re.compile(
    r"https?://(?:(?:drive|docs)\.google\.com/(?:file/|open\?|drive/|document/)|(?:www\.)?dropbox\.com/)", re.IGNORECASE
)
_FILE_OF_PAGE = re.compile(r"[?&](?:dl|raw)=1(?:&|$)")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_END_OF_AUTHORITY = re.compile(r"[/?#]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Names that the public DNS never answers: RFC 6761, 6762, 7686, 8375, 9476 and ICANN's `internal`; `lan` is what
# home routers use. `.example` is accepted: documentation and dry runs use it, and it fails by itself.
_NEVER_PUBLIC: Final = frozenset({"localhost", "local", "internal", "lan", "test", "invalid", "onion", "alt", "arpa"})

# `is_global` says yes to some of these, differently from one Python to the next.
_NOT_UNICAST_4: Final = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/3")))
# Global unicast is 2000::/3 and nothing else: mapped, NAT64 and site-local addresses lie outside. Inside it,
# 6to4 and Teredo contain an IPv4 address that would have to be checked again, and no server uses them.
_UNICAST_6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_UNICAST_6: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

_NOT_PUBLIC: Final = "is not a public address: the service fetches it from the internet"
_UPLOAD_FIRST: Final = "upload it first with session.upload_file()"


def judge_url(url: object, *, allow_private: bool = False) -> str | None:
    """Return why the service cannot fetch ``url``, as a part of a sentence, or None when no reason is found.

    ``allow_private`` accepts hosts that are not public, for a gateway in the same network.
    """
    if not isinstance(url, str):
        return f"it is of type {type(url).__name__}, not a text"
    if _DOUBTFUL.search(url, 7) is not None and (flaw := _judge_meaning(url)) is not None:
        return flaw
    plain = _PLAIN.fullmatch(url)
    if (
        plain is not None
        and plain["top"].lower() not in _NEVER_PUBLIC
        and plain.end("top") <= _MAX_HOST
        and len(url) <= MAX_URL
    ):
        return None
    return _judge_writing(url) or _judge_authority(url.partition("://")[2], allow_private=allow_private)


def _judge_meaning(url: str) -> str | None:
    """Return what is plainly not meant as a URL of a file, although it is written as one, or None."""
    if _SEVERAL.search(url, 7) is not None:
        return "it holds more than one URL: give each a row of its own"
    if _ROW.search(url) is not None:
        return "it is a row of a table, not a URL: name the columns in the first line of the list"
    if "&amp;" in url:
        return "it holds &amp;, as pages of HTML write it: write & alone"
    if _NAME_AFTER_HASH.search(url) is not None:
        return "it holds a #, and nothing behind that is ever asked for: write %23 where it belongs to the name"
    if _PAGE.match(url) is not None and _FILE_OF_PAGE.search(url) is None:
        return (
            "it is a page that shows a file, not the file: take the link of the download (Google Drive: "
            "/uc?export=download&id=ID, Dropbox: dl=1 at the end)"
        )
    return None


def _judge_writing(url: str) -> str | None:  # noqa: C901, PLR0911 - one return for each reason, the most helpful first
    """Check everything before the authority, and the characters of the whole."""
    if not url:
        return "it is empty"
    if len(url) > MAX_URL and not url[:5].lower().startswith("data:"):
        return f"it has {len(url)} characters, more than {MAX_URL}"
    split = _SCHEME.fullmatch(url)
    scheme = split["scheme"].lower() if split else ""
    if scheme == "data":
        return f"it holds the data itself, not an address: save it as a file and {_UPLOAD_FIRST}"
    if scheme == "asset":
        return "it is an asset already: use it as a reference in generate(), it needs no upload"
    # One letter before a colon is a Windows drive.
    if scheme == "file" or len(scheme) == 1 or url.startswith(("/", "\\", "./", "../", "~")):
        return f"it is a local path: {_UPLOAD_FIRST}"
    if any(char.isspace() for char in url):
        return "it contains white space: percent-encode it, or remove it from the ends"
    if not url.isprintable():
        return "it contains control or invisible characters: percent-encode or remove them"
    if split is None or (scheme not in {"http", "https"} and "://" not in url):
        return "it has no scheme: begin it with https://"
    if scheme not in {"http", "https"}:
        return f"its scheme is {safe_text(scheme, 20)}: only http and https URLs can be fetched"
    if not split["rest"].startswith("//"):
        return f"its scheme is not followed by two slashes: begin it with {scheme}://"
    return None


def _judge_authority(rest: str, *, allow_private: bool) -> str | None:
    authority = _END_OF_AUTHORITY.split(rest, maxsplit=1)[0]
    if "@" in authority:
        return "it carries a user name or password: use a URL that needs none, such as a signed one"
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return "its host cannot be read"
    if parts["port"] is not None and not (_PORT.fullmatch(parts["port"]) and 0 < int(parts["port"]) <= 65535):  # noqa: PLR2004 - RFC 6335
        return "its port is not a number from 1 to 65535"
    return judge_host(parts["host"], allow_private=allow_private)


def judge_host(host: str, *, allow_private: bool = False) -> str | None:  # noqa: C901, PLR0911 - one return for each reason
    """Return why ``host`` (a name, an IPv4 address or a bracketed IPv6 address) is not a public host, or None.

    It is checked as a resolver would see it: after NFKC and IDNA, in lower case, without a closing dot.
    """
    if not host:
        return "it names no host"
    if len(host) > _MAX_HOST:
        return "its host is too long for a name"
    if host.startswith("["):
        return _judge_ipv6(host[1:-1], allow_private=allow_private)
    if not host.isascii():
        try:
            # The idna codec does both: nameprep ends in NFKC, and every label becomes ASCII.
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return "its host is not a valid name"
    labels = host.lower().removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _judge_ipv4(".".join(labels), allow_private=allow_private)
    if len(host) > _MAX_HOST or not all(map(_LABEL.fullmatch, labels)):  # IDNA made it longer
        return "its host is not a valid name"
    if allow_private:
        return None
    if labels[-1] in _NEVER_PUBLIC:
        return f"its host ends in {labels[-1]}, which is not public: the service fetches it from the internet"
    if len(labels) == 1:
        return "its host is a name of a local network: the service fetches it from the internet"
    return None


def _judge_ipv4(text: str, *, allow_private: bool) -> str | None:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        # 2130706433, 0x7f.1, 127.1 and 0177.0.0.1 are all 127.0.0.1 to some resolver.
        return "its host is a number, but not an IPv4 address of four plain parts"
    public = address.is_global and not any(address in net for net in _NOT_UNICAST_4)
    return None if allow_private or public else f"its host {address} {_NOT_PUBLIC}"


def _judge_ipv6(text: str, *, allow_private: bool) -> str | None:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return "its host is not an IPv6 address"
    if address.scope_id is not None:
        return "its host has a zone, which only this machine knows"
    public = address in _UNICAST_6 and address.is_global and not any(address in net for net in _NOT_UNICAST_6)
    return None if allow_private or public else f"its host [{address}] {_NOT_PUBLIC}"
