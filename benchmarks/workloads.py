"""The workloads, as data: what is asked of the network, and how many at a time."""

from __future__ import annotations

from attrs import frozen

__all__ = ["FULL", "QUICK", "WORKLOADS", "Effort", "Workload"]


_BEGIN, _END = '{"permissions":[', "]}"
_RULE = '{"type":"call","to":"0x%s","selectors":["transfer(address,uint256)","approve(address,uint256)"]}' % (
    "11" * 20
)


@frozen(kw_only=True)
class Workload:
    """
    One kind of keygen.

    Args:
        name: Its name in results and tables.
        t: How many nodes must agree.
        n: How many nodes take part.
        permissions_bytes: Length of the permissions text in the setup; 0 for none.
        delay_ms: How long a stub node waits before each reply, in milliseconds.
        concurrency: How many keygens are in flight; one measurement for each level.
        on_devnet: Whether it is also run on real nodes.
        shows_fan_out: Whether the floor is also run node after node, to show what asking all at once saves.
    """

    name: str
    t: int
    n: int
    permissions_bytes: int = 0
    delay_ms: float = 0.0
    concurrency: tuple[int, ...] = (1, 8)
    on_devnet: bool = True
    shows_fan_out: bool = False

    @property
    def permissions(self) -> str | None:
        """A permissions text of that length: as many rules as fit, and blanks."""
        if not self.permissions_bytes:
            return None
        rules = (self.permissions_bytes - len(_BEGIN + _END)) // len(_RULE + ",")
        text = _BEGIN + ",".join([_RULE] * rules)
        return text.ljust(self.permissions_bytes - len(_END)) + _END


@frozen(kw_only=True)
class Effort:
    """
    How long everything is run.

    Args:
        name: ``quick`` or ``full``.
        rounds: Client and floor take turns this many times, so that both see the same machine.
        round_s: Seconds of each turn.
        warm_up: Keygens before anything is counted: connections, caches, code paths.
        devnet_s: Seconds on the devnet for each concurrency level.
        devnet_keygens: At least this many keygens there, however long they take.
    """

    name: str
    rounds: int
    round_s: float
    warm_up: int
    devnet_s: float
    devnet_keygens: int


QUICK = Effort(name="quick", rounds=3, round_s=0.2, warm_up=5, devnet_s=0.5, devnet_keygens=4)
FULL = Effort(name="full", rounds=9, round_s=0.7, warm_up=20, devnet_s=10.0, devnet_keygens=100)

_BASIC = (
    Workload(name="2-of-3", t=2, n=3),
    Workload(name="3-of-5", t=3, n=5),
    Workload(name="11-of-20", t=11, n=20),
)

#: Effort name -> what is run.
WORKLOADS: dict[str, tuple[Workload, ...]] = {
    "quick": _BASIC,
    "full": (
        *_BASIC,
        Workload(
            name="3-of-5, 16 KiB of permissions", t=3, n=5, permissions_bytes=16 * 1024, on_devnet=False
        ),
        Workload(
            name="3-of-5, nodes 20 ms away",
            t=3,
            n=5,
            delay_ms=20.0,
            concurrency=(1, 32),
            on_devnet=False,
            shows_fan_out=True,
        ),
    ),
}
