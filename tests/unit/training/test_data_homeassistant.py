"""The `homeassistant` data set, from a fabricated wheel."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from fabricated_wheel import held_out_names, learnable_names, pinned, service, write_wheel
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.errors import FetchError, UsageError
from training.data.homeassistant import Integration, read_wheel
from training.data.homeassistant_task import MOST_INTEGRATIONS, build_homeassistant
from training.data.task import DataSet, TaskQuery, texts_on_both_sides

RELEASE = pinned("0" * 64)
HELD_OUT = next(held_out_names())
LEARNABLE = list(islice(learnable_names(), 8))


def integration(name: str, english: dict[str, str], **translations: dict[str, str]) -> Integration:
    """Flat texts: `a.name` is a label, `a.description` explains it."""

    def paths(texts: dict[str, str]) -> dict[tuple[str, ...], str]:
        return {tuple(key.split(".")): text for key, text in texts.items()}

    return Integration(name, paths(english), {lang: [paths(texts)] for lang, texts in translations.items()})


def explained(name: str, label: str, text: str, german: str) -> Integration:
    return integration(name, {"a.name": label, "a.description": text}, de={"a.name": german})


def build(*integrations: Integration) -> DataSet:
    return build_homeassistant(integrations, ["de"], RELEASE)


def english(queries: object) -> set[str]:
    assert isinstance(queries, list)
    return {query.english for query in queries if isinstance(query, TaskQuery)}


def test_label_of_a_held_out_integration_finds_its_description() -> None:
    data = build(explained(HELD_OUT, "Start zone", "Waters one zone.", "Zone starten"))
    (query,) = data.test
    assert query.english == "Start zone"
    assert query.translations == {"de": "Zone starten"}
    assert [passage.text for passage in data.passages if passage.id in query.answers] == ["Waters one zone."]
    assert not data.train
    assert not data.pairs["de"]


def test_field_label_finds_the_sibling_data_description() -> None:
    data = build(
        integration(
            HELD_OUT,
            {"step.data.host": "Bridge address", "step.data_description.host": "Where the bridge listens."},
            de={"step.data.host": "Adresse der Bridge"},
        )
    )
    assert english(data.test) == {"Bridge address"}


def test_every_description_of_the_same_label_is_an_answer() -> None:
    data = build(
        explained(LEARNABLE[0], "Start zone", "Waters one zone.", "Zone starten"),
        explained(LEARNABLE[1], "start  ZONE", "Opens the valve.", "Zone starten"),
    )
    (query,) = data.train
    assert len(query.answers) == 2


def test_the_same_description_in_two_integrations_is_one_passage_that_names_both() -> None:
    data = build(
        explained(LEARNABLE[0], "Start", "Waters one zone.", "Starten"),
        explained(LEARNABLE[1], "Begin", "waters one zone.", "Beginnen"),
    )
    (passage,) = data.passages
    assert passage.metadata["components"] == sorted(LEARNABLE[:2])


def test_label_in_too_many_integrations_is_no_query_but_its_texts_can_be_found() -> None:
    names = LEARNABLE[: MOST_INTEGRATIONS + 1]
    data = build(*(explained(name, "Host", f"Address of {name}.", "Rechner") for name in names))
    assert not data.train
    assert len(data.passages) == len(names)


def test_text_that_a_held_out_integration_shares_leaves_training() -> None:
    data = build(
        explained(HELD_OUT, "Start zone", "Waters one zone.", "Zone starten"),
        explained(LEARNABLE[0], "Start zone", "Opens the valve.", "Zone starten"),
        explained(LEARNABLE[1], "Open valve", "Opens the valve.", "Ventil auf"),
        explained(LEARNABLE[2], "Close valve", "Shuts it.", "Ventil zu"),
    )
    assert english(data.test) == {"Start zone", "Open valve"}
    assert english(data.train) == {"Close valve"}
    assert {pair.english for pair in data.pairs["de"]} == {"Close valve"}
    assert {passage.text for passage in data.train_passages} == {"Shuts it."}


def test_pair_whose_translation_is_a_held_out_query_leaves_training() -> None:
    other = integration(LEARNABLE[0], {"title": "Launch"}, de={"title": "zone STARTEN"})
    data = build(explained(HELD_OUT, "Start zone", "Waters one zone.", "Zone starten"), other)
    assert not data.pairs["de"]


def test_strings_of_a_held_out_integration_are_no_training_pairs() -> None:
    texts = {"error": "Cannot reach the garden."}
    data = build(integration(HELD_OUT, texts, de={"error": "Garten nicht erreichbar."}))
    assert not data.pairs["de"]


def test_translation_that_repeats_the_english_label_is_no_query() -> None:
    assert not build(explained(LEARNABLE[0], "Token budget", "How many tokens.", "token budget")).train


def test_translation_that_stands_for_two_labels_is_no_query() -> None:
    data = build(
        explained(LEARNABLE[0], "Setting", "One choice.", "Einstellung"),
        explained(LEARNABLE[1], "Preference", "Another choice.", "Einstellung"),
    )
    assert not data.train


LABELS = st.sampled_from(["Start", "Stop", "Open", "Close", "Mode", "Zone", "Lock", "Fan"])
BODIES = st.sampled_from([f"It does {n}." for n in range(8)] + ["First.\n\nIt does 1.", "It does 2.\n\nSecond."])


@given(
    st.lists(
        st.lists(
            st.tuples(LABELS, BODIES, st.sampled_from(["eins", "zwei", "It does 3.", "Start", "vier"])), max_size=4
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_text_is_on_both_sides_whatever_integrations_share(parts: list[list[tuple[str, str, str]]]) -> None:
    integrations = []
    for number, found in enumerate(parts):
        texts = {
            f"{n}.{key}": text for n, (a, b, _) in enumerate(found) for key, text in (("name", a), ("description", b))
        }
        german = {f"{n}.name": text for n, (_, _, text) in enumerate(found)}
        integrations.append(integration(f"part{number}", texts, de=german))
    assert texts_on_both_sides(build(*integrations)) == set()


def test_wheel_is_read_without_placeholders_and_with_a_preferred_variant(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    write_wheel(
        wheel,
        {
            "abode": {
                "en": {"title": "Home alarm", "error": "Failed: {reason}", "link": "[%key:common::ok%]"},
                "pt": {"title": "Alarme"},
                "pt-BR": {"title": "Alarme residencial"},
            }
        },
    )
    (found,) = read_wheel(wheel, ["pt"])
    assert found.english == {("title",): "Home alarm"}
    assert found.translations["pt"] == [{("title",): "Alarme"}, {("title",): "Alarme residencial"}]


def test_language_that_the_wheel_lacks_is_bad_usage(tmp_path: Path) -> None:
    write_wheel(tmp_path / "some.whl", {"abode": {"en": {"title": "Alarm"}, "de": {"title": "Alarmanlage"}}})
    with pytest.raises(UsageError, match=r"no texts in 'xx'; it has de"):
        list(read_wheel(tmp_path / "some.whl", ["de", "xx"]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half an archive"])
def test_broken_wheel_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.whl").write_bytes(content)
    with pytest.raises(FetchError, match=r"some\.whl is broken"):
        list(read_wheel(tmp_path / "some.whl", ["de"]))


def test_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    write_wheel(tmp_path / "some.whl", {"abode": {"de": {"title": "Alarmanlage"}}})
    with pytest.raises(FetchError, match="no English texts"):
        list(read_wheel(tmp_path / "some.whl", ["de"]))


def test_services_of_a_wheel_become_queries(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    release = write_wheel(
        wheel, {HELD_OUT: {"en": service("Start zone", "Waters one zone."), "de": service("Zone starten", "Gießt.")}}
    )
    data = build_homeassistant(list(read_wheel(wheel, ["de"])), ["de"], release)
    assert english(data.test) == {"Start zone"}
