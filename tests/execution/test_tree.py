"""The tree of additions is the same however the blocks are cut into runs, and whichever run comes first.

The values are words of brackets, which show in which order they were added.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dask_em.execution.tree import insert, join, sent, total


@dataclass(frozen=True)
class Word:
    """A sum that shows its brackets."""

    text: str

    def __add__(self, other: Word) -> Word:
        return Word(f"({self.text} {other.text})")


def leaf(i: int) -> Word:
    return Word(str(i))


def walk(start: int, stop: int) -> dict[tuple[int, int], Word]:
    """What a task that walks the blocks start to stop - 1 returns."""
    nodes: dict[tuple[int, int], Word] = {}
    for i in range(start, stop):
        insert(nodes, (0, i), leaf(i))
    return nodes


def balanced(start: int, level: int) -> Word:
    """The complete subtree over 2^level blocks."""
    if level == 0:
        return leaf(start)
    return balanced(start, level - 1) + balanced(start + 2 ** (level - 1), level - 1)


def by_definition(n: int) -> Word:
    """Complete subtrees from the left, as large as fit, joined from the right."""
    parts, start = [], 0
    while start < n:
        level = (n - start).bit_length() - 1
        parts.append(balanced(start, level))
        start += 2**level
    word = parts.pop()
    while parts:
        word = parts.pop() + word
    return word


@given(n=st.integers(1, 70), cuts=st.lists(st.integers(0, 70), max_size=12), seed=st.integers(0, 1000))
def test_any_cutting_into_runs_adds_in_the_same_order(n: int, cuts: list[int], seed: int) -> None:
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    runs = [walk(a, b) for a, b in pairwise(edges)]
    random.Random(seed).shuffle(runs)
    assert total(join(runs)) == by_definition(n)


@given(n=st.integers(1, 70), seed=st.integers(0, 1000))
def test_blocks_may_arrive_in_any_order(n: int, seed: int) -> None:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    nodes: dict[tuple[int, int], Word] = {}
    for i in order:
        insert(nodes, (0, i), leaf(i))
    assert total(nodes) == by_definition(n)


@given(a=st.integers(0, 200), n=st.integers(0, 200))
def test_a_run_returns_few_subtrees(a: int, n: int) -> None:
    """Two a level at most: what travels does not grow with the run."""
    nodes = walk(a, a + n)
    assert len(nodes) <= 2 * max(n, 1).bit_length()
    assert sum(2**level for level, _ in nodes) == n


@given(n=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=4), inner=st.integers(0, 5))
def test_joins_may_be_nested(n: int, cuts: list[int], inner: int) -> None:
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    runs = [walk(a, b) for a, b in pairwise(edges)]
    assert total(join([join(runs[:inner]), join(runs[inner:])])) == by_definition(n)


def test_one_block_is_its_own_sum() -> None:
    assert total({(0, 0): leaf(0)}) == leaf(0)


def test_the_tree_is_the_one_that_is_written_down() -> None:
    """Bits of results depend on it: a change of this text changes what every user gets."""
    assert total(walk(0, 7)).text == "(((0 1) (2 3)) ((4 5) 6))"


@dataclass(frozen=True)
class Bag:
    """A sum that is the same in any order."""

    leaves: frozenset[int]
    exact = True

    def __add__(self, other: Bag) -> Bag:
        assert not self.leaves & other.leaves
        return Bag(self.leaves | other.leaves)


@given(n=st.integers(1, 70), cuts=st.lists(st.integers(0, 70), max_size=12))
def test_a_run_sends_one_sum_where_its_order_does_not_matter(n: int, cuts: list[int]) -> None:
    edges = sorted({0, n, *(cut for cut in cuts if cut < n)})
    runs = []
    for start, stop in pairwise(edges):
        words, bags = walk(start, stop), dict[tuple[int, int], Bag]()
        for i in range(start, stop):
            insert(bags, (0, i), Bag(frozenset([i])))
        assert sent(words) == words
        runs.append(sent(bags))
    groups = [sent(join(runs[i : i + 3])) for i in range(0, len(runs), 3)]
    assert all(len(group) == 1 for group in (*runs, *groups))
    assert total(join(groups)) == Bag(frozenset(range(n)))
