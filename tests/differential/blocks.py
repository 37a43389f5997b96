"""The blocks of a KV cache by brute force, with vLLM V1's prefix caching (block_pool.py there), as plain lists.

A list of free blocks, the next to take first; a free block keeps its content until it is taken; a freed one goes to the end.
Of several blocks with one content the first that got it is found.
"""

from __future__ import annotations

from collections.abc import Sequence


class Blocks:
    def __init__(self, count: int, tokens: int):
        self.count, self.tokens = count, tokens
        self.free = list(range(count))
        self.users = [0] * count
        self.contents: list[tuple[int, int]] = []  # (id, block), the oldest first
        self.decoded: set[int] = set()  # blocks that were filled by decodes
        self.twins = False  # whether there were ever two of one content, one of them decoded

    def of(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        found = 0
        while found * self.tokens < tokens:
            found += 1
        return found

    @property
    def held(self) -> int:
        return self.count - len(self.free)

    def take(self) -> int:
        block = self.free.pop(0)
        self.contents = [one for one in self.contents if one[1] != block]
        self.users[block] = 1
        return block

    def find(self, ids: Sequence[int], most: int) -> list[int]:
        """The blocks of the leading run of ids that are there, at most `most`."""
        found = []
        for wanted in ids[:most]:
            here = [block for content, block in self.contents if content == wanted]
            if not here:
                break
            found.append(here[0])
        return found

    def share(self, block: int) -> None:
        if not self.users[block]:
            self.free.remove(block)
        self.users[block] += 1

    def name(self, block: int, content: int, decoded: bool) -> None:
        if (content, block) in self.contents:
            return
        others = {other for same, other in self.contents if same == content}
        self.twins |= bool(others) and (decoded or bool(others & self.decoded))
        self.contents.append((content, block))
        self.decoded = self.decoded - {block} | ({block} if decoded else set())

    def drop(self, blocks: Sequence[int]) -> None:
        """A sequence gives its blocks back, the last one first."""
        for block in reversed(blocks):
            self.users[block] -= 1
            if not self.users[block]:
                self.free.append(block)
