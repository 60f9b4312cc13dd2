"""One fixed binary tree over the blocks, whoever adds.

Node (level, i) covers the blocks i 2^level to (i + 1) 2^level - 1. Whoever walks a run of blocks returns the sums of the largest
complete subtrees inside the run; joining runs completes the same tree. So the order of additions, and with it every bit of the
result, does not depend on the number of threads, workers or tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Node = tuple[int, int]


def insert(nodes: dict[Node, Any], node: Node, value: Any) -> None:
    """Add a node's value and join it with its sibling, and so on upwards, while the sibling is there."""
    while (sibling := (node[0], node[1] ^ 1)) in nodes:
        other = nodes.pop(sibling)
        value = other + value if sibling[1] < node[1] else value + other
        node = (node[0] + 1, node[1] // 2)
    nodes[node] = value


def sent(nodes: dict[Node, Any]) -> dict[Node, Any]:
    """What a task sends on of consecutive blocks: their subtrees, or one sum where it is the same in any order, which is less to send and to hold."""
    if not all(getattr(value, "exact", False) for value in nodes.values()):
        return nodes
    return {(0, min(i << level for level, i in nodes)): total(nodes)} if nodes else nodes


def join(parts: Iterable[dict[Node, Any]]) -> dict[Node, Any]:
    """Join the subtrees of several runs."""
    nodes: dict[Node, Any] = {}
    for part in parts:
        for node, value in part.items():
            insert(nodes, node, value)
    return nodes


def total(nodes: dict[Node, Any]) -> Any:
    """The sum over all blocks, from the complete subtrees that are left when every block is in."""
    ordered = sorted(nodes.items(), key=lambda item: item[0][1] << item[0][0])
    value = ordered[-1][1]
    for _, left in reversed(ordered[:-1]):
        value = left + value
    return value
