"""Which releases of a package exist for a platform, newest first.

Reads the JSON form (PEP 691) of the index that uv would use: ``UV_DEFAULT_INDEX``, else ``UV_INDEX_URL``,
else PyPI. Further indexes (``UV_INDEX``, ``UV_EXTRA_INDEX_URL``) and ``UV_FIND_LINKS`` folders are not
listed: the list serves to choose and to explain, what gets installed is uv's decision.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bisect_tool import process
from bisect_tool.errors import IndexUnreachable

if TYPE_CHECKING:
    import ssl

    from packaging.tags import Tag
    from packaging.version import Version

PYPI = "https://pypi.org/simple"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
FETCH_TIMEOUT_S = 20
# macOS ships its roots here; a python.org interpreter there knows none until its installer script ran.
SYSTEM_ROOTS = Path("/etc/ssl/cert.pem")


class Target(Protocol):
    """The interpreter that wheels are for; ``building.environment.Interpreter`` is one."""

    @property
    def path(self) -> Path: ...
    @property
    def version(self) -> str: ...
    @property
    def abi(self) -> str: ...
    @property
    def platform(self) -> str: ...


def available(package: str, *, python: Target, index_url: str | None = None) -> list[Version]:
    """The releases of ``package`` that have a wheel for ``python`` on this machine, newest first.

    Yanked files and pre-releases are left out; a package that the index does not know has none. Raises
    ``IndexUnreachable`` when the index does not answer, must not be asked, or has no JSON form.
    """
    listing = fetch_listing(package, index_url or index_in_use())
    return wheel_versions(listing, tags_of(python), python.version) if listing is not None else []


def wheel_versions(listing: Mapping[str, Any], tags: Collection[Tag], python_version: str) -> list[Version]:
    """Pure: the versions in a parsed PEP 691 page that have a usable wheel, newest first."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    usable = frozenset(tags)
    found: set[Version] = set()
    for file in listing.get("files", ()):
        # PEP 691: true, or the reason as a string, which may be empty.
        if file.get("yanked", False) is not False:
            continue
        try:
            _, version, _, wheel_tags = parse_wheel_filename(file["filename"])
            wants = SpecifierSet(file.get("requires-python") or "")
        except (InvalidWheelFilename, InvalidSpecifier):  # a source archive, or a file uv ignores as well
            continue
        if version.is_prerelease or usable.isdisjoint(wheel_tags):
            continue
        if wants.contains(python_version, prereleases=True):
            found.add(version)
    return sorted(found, reverse=True)


def nearest(wanted: Version | str, versions: Collection[Version], n: int = 5) -> list[Version]:
    """The ``n`` versions that stand closest to ``wanted`` in the order of releases, newest first."""
    from packaging.version import Version

    goal = Version(str(wanted))
    older = sorted((version for version in versions if version < goal), reverse=True)
    newer = sorted(version for version in versions if version >= goal)
    # Both lists start beside the goal; of two that are as many releases away, the newer one comes first.
    ranked = sorted([*enumerate(newer), *enumerate(older)], key=lambda pair: pair[0])
    return sorted((version for _, version in ranked[:n]), reverse=True)


def tags_of(python: Target) -> list[Tag]:
    """The wheel tags that ``python`` accepts, asked of that interpreter unless it is like ours.

    Raises ``IndexUnreachable`` when the interpreter cannot say, which leaves a list without meaning.
    """
    import packaging
    from packaging.tags import Tag, sys_tags

    if (python.version, python.platform) == (platform.python_version(), sysconfig.get_platform()):
        tags = list(sys_tags())
        if any(tag.abi == python.abi for tag in tags):
            return tags
    # packaging is pure Python: the other interpreter can read our copy of it.
    home = str(Path(next(iter(packaging.__path__))).parent)
    code = (
        f"import sys; sys.path.append({home!r})\n"
        "from packaging.tags import sys_tags\n"
        "for tag in sys_tags(): print(tag.interpreter, tag.abi, tag.platform)"
    )
    said = process.probe([str(python.path), "-I", "-c", code], timeout_s=30)
    if not said:
        raise IndexUnreachable(f"the wheels that {python.path} accepts are unknown", "it did not answer")
    return [Tag(*line.split()) for line in said.splitlines()]


def index_in_use() -> str:
    """The index uv would ask first. Raises ``IndexUnreachable`` where uv is told to ask none."""
    for name in ("UV_OFFLINE", "UV_NO_INDEX"):
        if os.environ.get(name, "").strip().lower() in ("1", "true", "t", "yes", "y", "on"):
            raise IndexUnreachable(
                "releases cannot be listed", f"{name} is set", f"unset {name} to list them"
            )
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := os.environ.get(name, "").strip():
            return re.sub(r"^[\w.-]+=", "", value)  # uv allows `name=https://…`
    return PYPI


def fetch_listing(package: str, index_url: str) -> dict[str, Any] | None:
    """The parsed PEP 691 page of ``package``, or None when the index has no such package."""
    # Loaded here: a release that is installed already needs no network, and these take 20 ms.
    import base64
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request

    from packaging.utils import canonicalize_name

    shown = without_credentials(index_url)
    parts = urllib.parse.urlsplit(index_url)
    if parts.scheme not in ("http", "https"):
        raise IndexUnreachable(
            f"the releases of {package} cannot be listed",
            f"the index {shown} is not a web address",
            "name a release that is in it",
        )
    address = without_credentials(index_url, mask="").rstrip("/") + f"/{canonicalize_name(package)}/"
    request = urllib.request.Request(address, headers={"Accept": JSON_TYPE})
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        # Not re-sent when the index redirects elsewhere.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        trust = trust_for(parts.scheme)
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S, context=trust) as answer:
            content_type, body = answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as problem:
        with problem:
            if problem.code == 404:
                return None
            raise _unreachable(shown, f"it answered {problem.code} {problem.reason}") from problem
    except (OSError, ValueError, http.client.HTTPException) as problem:  # refused, no such host, bad URL, …
        raise _unreachable(shown, str(getattr(problem, "reason", problem))) from problem
    if content_type != JSON_TYPE:
        raise _unreachable(shown, f"it answers {content_type}, not the JSON form of PEP 691")
    return _parsed(body, shown)


def without_credentials(url: str, mask: str = "***@") -> str:
    """``url`` with what stands before the host's ``@`` replaced, fit to print."""
    return re.sub(r"(?<=//)[^/@]*@", mask, url)


def listed(versions: Sequence[Version], limit: int = 6) -> str:
    """Versions as one clause: the first few, and how many there are: ``0.32.4, 0.32.3, … (60 in all)``."""
    text = ", ".join(str(version) for version in versions[:limit])
    return text + (f", … ({len(versions)} in all)" if len(versions) > limit else "")


def _parsed(body: bytes, shown: str) -> dict[str, Any]:
    try:
        page = json.loads(body)
    except ValueError:
        page = None
    if not isinstance(page, dict) or not isinstance(page.get("files"), list):
        raise _unreachable(shown, "its answer is not a list of files")
    return page


def trust_for(scheme: str) -> ssl.SSLContext | None:
    """Certificates as uv takes them: ``SSL_CERT_FILE``, else what this Python trusts, else the system's."""
    import ssl

    if scheme != "https":
        return None
    named = os.environ.get("SSL_CERT_FILE")
    if named:
        return ssl.create_default_context(cafile=named)
    context = ssl.create_default_context()
    known = context.cert_store_stats()["x509_ca"] or ssl.get_default_verify_paths().capath
    if not known and SYSTEM_ROOTS.exists():
        context.load_verify_locations(SYSTEM_ROOTS)
    return context


def _unreachable(shown: str, why: str) -> IndexUnreachable:
    return IndexUnreachable(
        f"the package index {shown} did not list its releases",
        why,
        "check the network, the proxy settings and UV_DEFAULT_INDEX",
    )
