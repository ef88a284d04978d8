"""Which peers are known to want, or to have wanted, which blob: what a large site is told by `Wanted`."""

from __future__ import annotations

from collections import OrderedDict

from p2pd.model.reference import Digest

__all__ = ["Interests"]

_DIGESTS = 256
_NODES = 2048


class Interests:
    """Bounded: of the blobs that were spoken of last. Who is live is for others to say."""

    def __init__(self) -> None:
        self._of: OrderedDict[Digest, set[str]] = OrderedDict()

    def note(self, digest: Digest, node: str) -> None:
        """A peer wants a blob."""
        nodes = self._of.setdefault(digest, set())
        self._of.move_to_end(digest)
        if len(nodes) < _NODES:
            nodes.add(node)
        if len(self._of) > _DIGESTS:
            self._of.popitem(last=False)

    def forget(self, digest: Digest, node: str) -> None:
        """It neither wants nor holds the blob any more."""
        self._of.get(digest, set()).discard(node)

    def of(self, digest: Digest) -> set[str]:
        """A copy."""
        return set(self._of.get(digest, ()))
