"""The server with a leak planted, so that the soak is known to see one: 1 KiB a call."""

from typing import Any

from server.cli import main
from server.repository import Repository

_leaked: list[bytearray] = []
_get = Repository.get


def _leak(*arguments: Any) -> Any:
    _leaked.append(bytearray(1024))
    return _get(*arguments)


Repository.get = _leak  # type: ignore[assignment,method-assign] # the leak
main()
