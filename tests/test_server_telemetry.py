"""A server reports to nobody: its sockets are its port and its callers' connections."""

import re
import sys
import time
from pathlib import Path
from typing import Any

from callers import calling

# onnxruntime 1.31.1, where it is not told to be silent, first looks for its collector
# 9 s after it is imported.
WATCH_SECONDS = 12

SOCKET = re.compile(r"socket:\[(\d+)\]")


def sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets: proc(5), fd."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            socket = SOCKET.fullmatch(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
        if socket:
            found.add(socket[1])
    return found


def ends(pid: int) -> dict[str, str]:
    """The near ends of all TCP sockets on a process's network, by inode: proc(5), net/tcp."""
    tables = (Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    return {row[9]: row[1] for row in rows}


def test_a_server_connects_to_nobody(start_server: Any, bundled_models: Path) -> None:
    """Whenever one looks, under load, each of its sockets is its port's."""
    server = start_server("--models", str(bundled_models))
    port = f":{int(server.address.rpartition(':')[2]):04X}"
    seen: dict[str, str] = {}
    with calling(sys.executable, "-m", "tests.callers", server.address):
        deadline = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < deadline:
            for inode in sockets(server.pid) - seen.keys():
                # Of another kind, or closed again at once: no caller's either.
                seen[inode] = ends(server.pid).get(inode, "unknown")
    assert len(seen) > 1  # its port, and a caller
    assert not [end for end in seen.values() if not end.endswith(port)]
