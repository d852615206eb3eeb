"""Reading rows: what is in them, what is wrong with them, and that a row keeps its name."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.cli.batch import BatchRow, guess_format, read_rows
from dan_async.errors import ConfigurationError

KEY = "11" * 32
ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


def rows(text: str, form: str = "jsonl") -> list[BatchRow]:
    return list(read_rows(io.StringIO(text), form))


def test_json_lines() -> None:
    """Names in camelCase or not; blank lines are passed over."""
    first, second = rows(
        json.dumps({"id": "a", "privateKey": "0x" + KEY, "chainId": 137, "permissions": {"x": 1}})
        + "\n\n"
        + json.dumps({"parties_number": 3, "duration": 60, "keyLabel": None, "minHolders": 3})
    )
    assert (first.row_id, first.address, first.wallet.address) == ("a", ADDRESS, ADDRESS)
    assert first.parameters == {"chain_id": 137, "permissions": {"x": 1}}
    assert second.parameters == {"parties_number": 3, "duration": 60, "min_holders": 3}
    assert (first.number, second.number) == (1, 2)


def test_csv() -> None:
    """The first line names the columns; empty cells count as not given."""
    text = f'id,private_key,chainId,label\n1,{KEY},137,"one, two"\n2,,,\n\n3,{KEY},x,\n4,too,few\n'
    first, second, third, fourth = rows(text, "csv")
    assert first.parameters == {"chain_id": 137, "key_label": "one, two"}
    assert (second.row_id, second.wallet, second.parameters) == ("2", None, {})
    assert third.problem == "chainId must be a whole number"
    assert "3 columns" in fourth.problem


@pytest.mark.parametrize("text", ["", "\rid,chainId\n", 'id,"', "nothing\n"])
def test_a_csv_without_columns_is_refused(text: str) -> None:
    """Also where its first line is no CSV."""
    with pytest.raises(ConfigurationError, match="does not name the columns"):
        list(read_rows(io.StringIO(text, newline=""), "csv"))


def test_wallet_lists() -> None:
    """A private key or an address on each line; comments are passed over."""
    key, address, wrong = rows(f"# owners\n{KEY}\n  {ADDRESS}\n\nnonsense\n", "wallets")
    assert (key.wallet is not None, key.address) == (True, ADDRESS)
    assert (address.wallet, address.address) == (None, ADDRESS)
    assert wrong.problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"chianId": 1}', "chianId is not a field"),
        ('{"privateKey": "12"}', "privateKey"),
        ('{"privateKey": 7}', "privateKey"),
        ('{"address": "0x12"}', "address"),
        ('{"privateKey": "' + KEY + '", "owner": "0x' + "12" * 20 + '"}', "address is not the private key's"),
        ('{"chainId": 1.5}', "chainId must be a whole number"),
        ('{"duration": true}', "duration must be a whole number"),
        ('{"id": ""}', "id must be"),
        ('{"id": "' + "x" * 151 + '"}', "id must be"),
    ],
)
def test_a_wrong_row_is_given_with_its_problem(line: str, problem: str) -> None:
    """And those around it are read; no key is repeated."""
    before, wrong, after = rows(f'{{"id":1}}\n{line}\n{{"id":2}}\n')
    assert problem in wrong.problem
    assert KEY not in wrong.problem
    assert (before.problem, after.problem) == ("", "")


def test_an_id_stands_once() -> None:
    """The second row of that id is refused: it would be taken for the first."""
    _, second = rows('{"id":"a"}\n{"id":"a","chainId":5}\n')
    assert second.problem == "id occurs twice in the input"


def test_a_row_with_an_id_stays_the_same_row() -> None:
    """Whatever else changes in it."""
    (first,) = rows('{"id":"a","chainId":1}')
    (second,) = rows('{"chainId":2,"id":"a"}')
    assert first.reference == second.reference == "batch:id:a"


@settings(max_examples=40)
@given(chains=st.lists(st.integers(1, 4), max_size=12), data=st.data())
def test_equal_rows_have_names_of_their_own_that_last(chains: list[int], data: st.DataObject) -> None:
    """Equal rows are told apart by how many stood before; other rows between them, or their order, do not matter."""
    text = "".join(f'{{"chainId":{chain}}}\n' for chain in chains)
    names = [row.reference for row in rows(text)]
    assert len(set(names)) == len(names)
    assert [row.reference for row in rows(text)] == names
    shuffled = data.draw(st.permutations(chains))
    again = rows("".join(f'{{"chainId":{chain}}}\n' for chain in shuffled))
    assert sorted(row.reference for row in again) == sorted(names)


def test_names_hold_no_key() -> None:
    """References are not encrypted in the store."""
    (row,) = rows(json.dumps({"privateKey": KEY}))
    assert KEY not in row.reference
    assert KEY not in repr(row)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", f"{KEY}\n"])
def test_a_csv_needs_its_header(text: str) -> None:
    """Or nobody could say what is in which column."""
    with pytest.raises(ConfigurationError, match="columns"):
        rows(text, "csv")


@pytest.mark.parametrize(
    ("name", "form"), [("a.jsonl", "jsonl"), ("b.NDJSON", "jsonl"), ("c.csv", "csv"), ("d.txt", "wallets")]
)
def test_the_name_says_the_format(name: str, form: str) -> None:
    """By its suffix."""
    assert guess_format(name) == form


def test_an_unknown_name_does_not() -> None:
    """Then it has to be given."""
    with pytest.raises(ConfigurationError, match="--format"):
        guess_format("rows.dat")


def test_an_endless_input_is_read_row_by_row() -> None:
    """Nothing is read ahead."""

    class Endless(io.StringIO):
        lines = 0

        def readline(self, size: int = -1) -> str:
            self.lines += 1
            return '{"chainId":1}\n'

    source = Endless()
    assert len(list(itertools.islice(read_rows(source, "jsonl"), 10))) == 10
    assert source.lines == 10
