"""Keys of concurrent requests: each is checked once, and the check is nobody's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from service.key_file import KeyFile
from service.key_ring import KeyRing, TooManyAttemptsError
from service.keys import KeyHash, new_key

KEY, HASH = new_key()


class SlowCheck:
    """Holds every check back until `gate` is set, and notes which keys were tried."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.tried: list[str] = []

    async def begun(self) -> None:
        while not self.tried:
            await asyncio.sleep(0.001)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowCheck]:
    slow = SlowCheck()
    matches = KeyHash.matches

    def held_back(stored: KeyHash, key: str) -> bool:
        slow.tried.append(key)
        assert slow.gate.wait(30)
        return matches(stored, key)

    monkeypatch.setattr(KeyHash, "matches", held_back)
    yield slow
    slow.gate.set()


def wrong_keys(number: int) -> list[str]:
    return [f"{KEY[:-2]}{last:02}" for last in range(number)]


def test_first_requests_with_one_key_wait_for_one_check(check):
    async def ask_at_once() -> list[KeyHash | None]:
        ring = KeyRing([HASH])
        asked = [asyncio.create_task(ring.identify(KEY)) for _ in range(30)]
        await check.begun()
        check.gate.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask_at_once()) == [HASH] * 30
    assert check.tried == [KEY]


def test_a_guessed_key_is_refused_to_all_who_bring_it_by_one_check(check):
    check.gate.set()
    guess = wrong_keys(1)[0]

    async def ask_at_once() -> list[KeyHash | None]:
        ring = KeyRing([HASH])
        return await asyncio.gather(*(ring.identify(guess) for _ in range(30)))

    assert asyncio.run(ask_at_once()) == [None] * 30
    assert check.tried == [guess]


def test_more_unknown_keys_than_may_wait_are_refused_and_known_ones_are_not(check):
    async def ask_at_once() -> list[KeyHash | BaseException | None]:
        ring = KeyRing([HASH])
        asked = [asyncio.create_task(ring.identify(key)) for key in [KEY, *wrong_keys(9)]]
        await check.begun()
        asked += [asyncio.create_task(ring.identify(KEY)) for _ in range(9)]
        await asyncio.sleep(0)
        check.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask_at_once())
    assert answers[0] == HASH
    assert answers[1:8] == [None] * 7
    assert [type(answer) for answer in answers[8:10]] == [TooManyAttemptsError] * 2
    assert answers[10:] == [HASH] * 9


def test_a_request_that_goes_away_takes_the_check_from_no_other(check):
    async def ask_and_go() -> KeyHash | None:
        ring = KeyRing([HASH])
        first = asyncio.create_task(ring.identify(KEY))
        await check.begun()
        second = asyncio.create_task(ring.identify(KEY))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        check.gate.set()
        return await second

    assert asyncio.run(ask_and_go()) == HASH
    assert check.tried == [KEY]


def test_a_key_revoked_while_it_is_checked_is_not_let_in(check, tmp_path, monkeypatch):
    monkeypatch.setattr("service.key_ring._LOOK_S", 0.0)
    file = KeyFile(tmp_path / "keys")
    file.add(HASH)

    async def ask_meanwhile() -> list[KeyHash | None]:
        ring = KeyRing((), KeyFile(file.path))
        asked = asyncio.create_task(ring.identify(KEY))
        await check.begun()
        file.remove(HASH.id)
        after = await ring.identify(KEY)
        check.gate.set()
        return [after, await asked]

    assert asyncio.run(ask_meanwhile()) == [None, None]


def test_a_change_of_the_file_forgets_only_the_keys_that_it_changed(check, tmp_path, monkeypatch):
    monkeypatch.setattr("service.key_ring._LOOK_S", 0.0)
    check.gate.set()
    other_key, other = new_key("write")
    file = KeyFile(tmp_path / "keys")
    file.add(HASH)
    ring = KeyRing((), KeyFile(file.path))
    guess = wrong_keys(1)[0]
    assert [asyncio.run(ring.identify(key)) for key in (KEY, guess)] == [HASH, None]
    file.add(other)
    assert [asyncio.run(ring.identify(key)) for key in (KEY, guess, other_key)] == [HASH, None, other]
    assert check.tried == [KEY, guess, other_key]
    file.remove(HASH.id)
    assert [asyncio.run(ring.identify(key)) for key in (KEY, other_key)] == [None, other]
    file.add(HASH)
    assert asyncio.run(ring.identify(KEY)) == HASH
    assert check.tried == [KEY, guess, other_key, KEY]
