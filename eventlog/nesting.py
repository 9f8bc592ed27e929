"""How deep the values in a payload stand in each other: what is too deep is carried along as bytes. Pure."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 256
"""More than any writer nests, and less than what readers, which go down into each value, have stack for."""
_CONTAINERS: Final = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))


def may_be_deep(payload: bytes | memoryview) -> bool:
    """Say whether msgpack has bytes enough that could begin an array or a map; cheap, and never False by mistake."""
    return len(payload) > MAX_DEPTH and len(payload) - len(bytes(payload).translate(None, _CONTAINERS)) > MAX_DEPTH


def is_deep(value: Any) -> bool:
    """Say whether arrays and maps stand in each other more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level if isinstance(outer, list | tuple | dict) for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(container: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else [*container]
