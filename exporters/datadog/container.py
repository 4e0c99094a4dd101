"""Which container this process runs in, as the Agent wants to hear it (protocol A.8); Linux only, else nothing."""

from __future__ import annotations

import re
from pathlib import Path

_HOST_CGROUP_NAMESPACE = 0xEFFFFFFB  # the inode that the kernel gives the initial cgroup namespace
_LINE = re.compile(r"\d+:([^:]*):(.+)")
_CONTAINER = re.compile(
    r"(?:^|[^0-9a-f])"
    r"([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{8}(?:-[0-9a-f]{4}){4}|[0-9a-f]{64}|[0-9a-f]{32}-\d+)"
    r"(?:\.scope(?:/[^/]+)?)?\s*$"
)


def container_headers(root: Path = Path("/")) -> dict[str, str]:
    """Give the headers Datadog-Container-ID and Datadog-Entity-ID of this process, as far as they are known.

    Args:
        root: where `proc` and `sys` are (tests lay out their own).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    groups = [match.groups() for line in lines if (match := _LINE.match(line))]
    for _, path in groups:
        if match := _CONTAINER.search(path):
            return {"Datadog-Container-ID": match[1], "Datadog-Entity-ID": f"ci-{match[1]}"}
    inode = _cgroup_inode(root, groups)
    return {"Datadog-Entity-ID": f"in-{inode}"} if inode else {}


def _cgroup_inode(root: Path, groups: list[tuple[str, ...]]) -> int:
    """Find the inode of this process's cgroup node, which names the container where the path does not."""
    try:
        if (root / "proc/self/ns/cgroup").stat().st_ino == _HOST_CGROUP_NAMESPACE:
            return 0
    except OSError:
        return 0
    for controllers, path in groups:
        if controllers in {"", "memory"}:
            node = root / "sys/fs/cgroup" / controllers / path.lstrip("/")
            try:
                return node.stat().st_ino
            except OSError:
                continue
    return 0
