"""Parameters: those that mean something here, and their types."""

from collections.abc import Mapping
from reprlib import repr as shortened  # what is quoted may be megabytes
from typing import Any, NamedTuple

from server.errors import InvalidInput


class Kind(NamedTuple):
    """What a parameter may be: the fields that may hold it, and its least value."""

    fields: tuple[str, ...]
    least: int = 0


_FLAG = Kind(("bool_param",))
_INTEGER = Kind(("int64_param", "uint64_param"))

REQUEST = {
    "timeout": _INTEGER,  # microseconds; 0 for none
    # Both as in Triton where a model has one priority, and one response to a request.
    "priority": _INTEGER,
    "triton_enable_empty_final_response": _FLAG,
}
INPUT: dict[str, Kind] = {}
OUTPUT = {"classification": _INTEGER._replace(least=1)}
LOAD: dict[str, Kind] = {}
UNLOAD = {"unload_dependents": _FLAG}

# What Triton keeps for itself; other names are the caller's own affair.
_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output"}
_RESERVED_PREFIXES = ("triton_", "shared_memory_")


def read(
    parameters: Mapping[str, Any], field: str, known: Mapping[str, Kind], *, strict: bool = False
) -> dict[str, int]:
    """Returns the values of those that are known.

    Args:
        parameters: messages with the oneof `parameter_choice`.
        field: where they stand in the request.
        known: what they may be, by name.
        strict: whether others are wrong, and not only those that Triton reserves.

    Raises:
        InvalidInput: one has no value, a value of the wrong type, or a reserved name.
    """
    values = {}
    for name in sorted(parameters):  # a map has no order, and the first complaint should have one
        parameter = parameters[name]
        where = f"{field}[{shortened(name)}]"
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(where, "it has no value: give it one, or leave it out.")
        if kind := known.get(name):
            value = getattr(parameter, choice)
            if choice not in kind.fields:
                raise InvalidInput(where, f"{choice} was sent: send {' or '.join(kind.fields)}.")
            if value < kind.least:
                raise InvalidInput(where, f"{value} is too small: send {kind.least} or more.")
            values[name] = value
        elif strict or name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise InvalidInput(
                where, "Triton has it for what this server does not do: leave it out."
            )
    return values
