"""t of n."""

from __future__ import annotations

from attrs import field, frozen

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int

#: Most parties that one key may have. Every party exchanges messages with every other, so the cost grows with the square.
MAX_PARTIES = 20


@frozen
class Threshold:
    """
    How many parties hold a share (n) and how many of them must act together (t): 2 <= t <= n <= 20.

    t parties suffice, and t - 1 learn nothing: t does not mean "t + 1" anywhere in this package.

    Args:
        t: Parties needed to sign.
        n: Parties that hold a share of the key.

    Raises:
        InvalidFieldError: t or n is out of range; the field is called threshold or parties_number.
    """

    t: int = field()
    n: int = field()

    def __attrs_post_init__(self) -> None:
        check_int("parties_number", self.n, least=2, most=MAX_PARTIES)
        check_int("threshold", self.t, least=2, most=MAX_PARTIES)
        if self.t > self.n:
            raise InvalidFieldError(
                "threshold", f"is {self.t}, more than parties_number, {self.n}", hint="Ask for 2 <= t <= n"
            )

    def __str__(self) -> str:
        return f"{self.t}-of-{self.n}"

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read the form ``3-of-5``."""
        t, _, n = text.partition("-of-")
        if not (
            t.isascii() and n.isascii() and t.isdecimal() and n.isdecimal() and len(t) <= 4 and len(n) <= 4
        ):
            raise InvalidFieldError("threshold", "must have the form T-of-N", hint="For example: 3-of-5")
        return cls(int(t), int(n))
