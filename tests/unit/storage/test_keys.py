"""Where keys come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dan_async.errors import ConfigurationError, InvalidFieldError, StoreKeyError
from dan_async.storage import (
    CallbackKeys,
    FixedKeys,
    KeySource,
    PassphraseKeys,
    StoreKey,
    keys_from_environment,
    keys_from_file,
)
from tests.helpers import ManualClock

HEX = "5a" * 32


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_a_file_holds_the_current_key_first(tmp_path: Path) -> None:
    """Older ones follow, for what was written before."""
    keys = keys_from_file(write(tmp_path / "key", f"second:{HEX}\nfirst:{'5b' * 32}\n"))
    assert (await keys.current(None)).id == "second"
    assert await keys.by_id("first") == StoreKey("first", bytes.fromhex("5b" * 32))
    assert await keys.by_id("third") is None
    assert isinstance(keys, KeySource)


async def test_a_bare_key_has_an_id_of_its_own(tmp_path: Path) -> None:
    """Equal for equal keys, different for others."""
    one = await keys_from_file(write(tmp_path / "a", HEX)).current(None)
    same = await keys_from_environment("K", environment={"K": f" {HEX} "}).current(None)
    other = await keys_from_environment("K", environment={"K": "5b" * 32}).current(None)
    assert one == same
    assert one.id != other.id


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """The hint says how to change that."""
    with pytest.raises(ConfigurationError, match="chmod 600"):
        keys_from_file(write(tmp_path / "key", HEX, 0o640))


@pytest.mark.parametrize("text", ["", "zz" * 32, "5a" * 31, f"bad id:{HEX}", f"a:{HEX} a:{HEX}", "ключ"])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    """Neither from a file nor from the environment."""
    with pytest.raises(ConfigurationError) as from_file:
        keys_from_file(write(tmp_path / "key", text))
    with pytest.raises(ConfigurationError) as from_environment:
        keys_from_environment("K", environment={"K": text})
    for caught in (from_file, from_environment):
        assert not text or text not in str(caught.value)


def test_a_missing_file_or_variable_is_named(tmp_path: Path) -> None:
    """So that the reader knows what to make."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        keys_from_file(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="NOT_SET"):
        keys_from_environment("NOT_SET", environment={})


def test_no_key_is_shown() -> None:
    """Not in the repr of keys, nor of what holds them."""
    key = StoreKey("a", bytes.fromhex(HEX))
    for value in (key, FixedKeys([key]), PassphraseKeys("correct horse")):
        assert HEX not in repr(value)
        assert "correct" not in repr(value)
    assert StoreKey.parse(key.to_text()) == key


@pytest.mark.parametrize("secret", [b"", b"x" * 31, "x" * 32])
def test_a_key_has_32_bytes(secret: object) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidFieldError):
        StoreKey("a", secret)


async def test_a_passphrase_makes_the_same_key_from_the_same_id() -> None:
    """Another process with the passphrase alone derives what the store used last."""
    first = await PassphraseKeys("correct horse", cost=2**10).current(None)
    again = PassphraseKeys("correct horse", cost=2**11)
    assert await again.current(first.id) == first
    assert (await PassphraseKeys("correct horse", cost=2**10).current(None)).secret != first.secret


async def test_a_wrong_passphrase_makes_no_key() -> None:
    """Nothing is written under a mistyped one."""
    known = (await PassphraseKeys("correct horse", cost=2**10).current(None)).id
    wrong = PassphraseKeys("correct hearse", cost=2**10)
    assert await wrong.by_id(known) is None
    with pytest.raises(StoreKeyError, match="passphrase"):
        await wrong.current(known)


async def test_a_passphrase_can_be_changed() -> None:
    """The new one writes, the earlier one still reads."""
    old = await PassphraseKeys("correct horse", cost=2**10).current(None)
    changed = PassphraseKeys("battery staple", older=["correct horse"], cost=2**10)
    new = await changed.current(old.id)
    assert new.id != old.id
    assert await changed.by_id(old.id) == old
    assert await changed.by_id(new.id) == new


async def test_an_id_does_not_choose_the_work() -> None:
    """Costs that we do not use are refused, or a changed row could make every reader derive for hours."""
    key = await PassphraseKeys("correct horse", cost=2**10).current(None)
    with pytest.raises(StoreKeyError, match="costs"):
        await PassphraseKeys("correct horse").by_id(key.id.replace("scrypt:1024", "scrypt:9999999"))
    assert await PassphraseKeys("correct horse").by_id("first") is None


@pytest.mark.parametrize("wrong", [{"passphrase": "short"}, {"passphrase": "long enough", "cost": 1000}])
def test_weak_passphrases_and_odd_costs_are_refused(wrong: dict[str, object]) -> None:
    """Before anything is derived."""
    with pytest.raises(InvalidFieldError):
        PassphraseKeys(**wrong)


class Service:
    """A key service that counts how often it is asked."""

    def __init__(self) -> None:
        self.keys = {"a": StoreKey("a", b"\x01" * 32)}
        self.asked: list[str | None] = []

    async def fetch(self, key_id: str | None) -> StoreKey | None:
        self.asked.append(key_id)
        return self.keys.get(key_id or "a")


async def test_a_key_service_is_asked_and_remembered_for_a_while() -> None:
    """One question for each key within the time, and another one afterwards."""
    service, clock = Service(), ManualClock()
    keys = CallbackKeys(service.fetch, keep_s=10, clock=clock)
    for _ in range(3):
        assert (await keys.current(None)).id == "a"
        assert await keys.by_id("a") == service.keys["a"]
    assert service.asked == [None]
    clock.advance(10)
    await keys.current(None)
    assert service.asked == [None, None]
    assert await keys.by_id("unknown") is None


async def test_a_failing_key_service_is_named() -> None:
    """Its own exception is the cause; what is no answer is refused."""

    async def broken(_: str | None) -> StoreKey:
        raise OSError("unreachable")

    async def confused(_: str | None) -> StoreKey:
        return StoreKey("b", b"\x02" * 32)

    async def empty(_: str | None) -> None:
        return None

    with pytest.raises(StoreKeyError, match="OSError") as caught:
        await CallbackKeys(broken).current(None)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StoreKeyError, match="something other"):
        await CallbackKeys(confused).by_id("a")
    with pytest.raises(StoreKeyError, match="no current key"):
        await CallbackKeys(empty).current(None)
