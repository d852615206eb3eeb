"""Challenges are good for one operation: a gateway that gives one twice is asking for a signature it already has."""

from __future__ import annotations

from collections.abc import Iterable

from dan_async.errors import ChallengeError

__all__ = ["SeenChallenges"]

#: Challenges that are remembered; the oldest are forgotten first. About 100 bytes each.
MOST_REMEMBERED = 65_536


class SeenChallenges:
    """
    Remembers the challenges of one network object, so that none is answered twice.

    Args:
        most: How many to remember.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, challenges: Iterable[str]) -> None:
        """
        Take note of challenges that came.

        Args:
            challenges: Each 64 hex digits; the case of the letters does not make another challenge.

        Raises:
            ChallengeError: One came before.
        """
        for challenge in challenges:
            value = bytes.fromhex(challenge)
            if value in self._seen:
                raise ChallengeError(
                    "the gateway gave a challenge that it had given before",
                    hint="The wallet was not asked. Suspect the gateway: repeated challenges let signatures be replayed",
                )
            self._seen[value] = None
            if len(self._seen) > self._most:
                del self._seen[next(iter(self._seen))]
