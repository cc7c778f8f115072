"""What an operator says, as bytes: one way to write it, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.command import Command, Verb

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    st.builds(
        Command,
        id=TEXT,
        command=st.sampled_from(Verb),
        stream=TEXT,
        channels=st.lists(TEXT, max_size=3).map(tuple),
        by=st.none() | TEXT,
        note=TEXT,
        time=st.sampled_from([None, "2024-05-01T12:00:00.5Z"]),
    )
)
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    assert Command.from_bytes(command.to_bytes()) == command


def test_the_bytes_of_a_command_are_canonical() -> None:
    command = Command(id="1", command=Verb.ACCEPT, stream="pumpe-β", channels=("flow",), by="Ada")
    assert command.to_bytes().decode() == (
        '{"by":"Ada","channels":["flow"],"command":"accept","id":"1","note":"","stream":"pumpe-β","version":1}'
    )


def test_the_least_that_is_a_command() -> None:
    command = Command.from_bytes(b'{"id":"1","command":"confirm","stream":"a"}')
    assert (command.channels, command.by, command.note, command.time) == ((), None, "", None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"1", "object"),
        (b'{"id":"1","command":"explode","stream":"a"}', "command: Input should be 'accept' or 'confirm'"),
        (b'{"id":"1","command":"accept","stream":"a","version":2}', "version: Input should be 1"),
        (b'{"id":"1","command":"accept","stream":"a","time":"noon"}', "time: Value error, not a time"),
        (b'{"id":"1","command":"accept"}', "stream: Field required"),
        (b'{"id":"1","command":"accept","stream":"a","surprise":1}', "surprise: Extra"),
    ],
)
def test_what_is_none_is_named_in_one_line(value: bytes | None, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        Command.from_bytes(value)
    assert "\n" not in str(error.value)
