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


def of_run(nodes: dict[Node, Any], first: int) -> dict[Node, Any]:
    """What a run that begins with this block sends on: its subtrees, or their sum where it is the same in any order, which is less to send and to hold."""
    return {(0, first): total(nodes)} if nodes and all(getattr(v, "exact", False) for v in nodes.values()) else nodes


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
