"""The `homeassistant` data set: a label, in the reader's language, finds the English sentence that explains it.

Labels are `.../name`, `.../title` and `.../data/X`; they are explained by the sibling `.../description` or
`.../data_description/X`. Judged by text: whatever any integration says about a label answers it. Left out as queries
are labels (and explanations) that more than three integrations share: "Host" asks for nothing in particular.

The split is by integration: the hash of its name holds one out. Labels and explanations that occur together anywhere
form a group; a group that touches a held-out integration is held out whole, also where other integrations repeat it.
Training takes no text from held-out integrations, and from the others none that is in a held-out group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from drdecr.corpus import ParallelPair, Passage
from training.data.groups import Groups, is_held_out
from training.data.homeassistant import Integration, KeyPath
from training.data.task import (
    DataSet,
    Meanings,
    TaskQuery,
    cap_by_language,
    held_out_texts,
    keep_clear,
    without_texts,
)
from training.data.texts import has_letters, paragraph_keys, text_key
from training.wheels import PinnedWheel

HELD_OUT_SHARE = 0.15
MOST_INTEGRATIONS = 3
MAX_PAIR_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Explanation:
    """A label and the text that explains it, at one place of one integration."""

    integration: str
    label_path: KeyPath
    text_path: KeyPath
    label: str
    text: str


def build_homeassistant(
    integrations: Sequence[Integration], languages: Sequence[str], release: PinnedWheel
) -> DataSet:
    """Make the retrieval task and the training pairs."""
    explanations = [found for integration in integrations for found in _explanations(integration)]
    passages, ids = _passages(explanations)
    by_id = {passage.id: passage for passage in passages}
    specific = _specific(explanations)
    held_integrations = {one.name for one in integrations if is_held_out(one.name, HELD_OUT_SHARE)}
    held_labels = _held_out_labels(specific, held_integrations)

    meanings, translated = _label_translations(integrations, explanations)
    queries = keep_clear(_queries(specific, ids, translated, languages), meanings)
    held_out = [query for query in queries if text_key(query.english) in held_labels]
    banned = held_out_texts(held_out, by_id)
    for one in specific:
        if text_key(one.label) in held_labels:
            banned |= {text_key(one.label), *paragraph_keys(one.text)}
    learnable = [one for one in integrations if one.name not in held_integrations]
    test = cap_by_language(held_out)
    return DataSet(
        name="homeassistant",
        passages=passages,
        demo=passages,
        train_passages=_train_passages(passages, held_integrations, banned),
        train=without_texts((one for one in queries if text_key(one.english) not in held_labels), banned, by_id),
        test=test,
        pairs={lang: list(_pairs(learnable, lang, banned)) for lang in languages},
        facts={
            "version": release.version,
            "licence": "Apache-2.0",
            "source": {"file": release.filename, "sha256": release.sha256},
            "split": {
                "rule": "by integration (hash of its name); repeated texts follow the held-out copy",
                "held_out_share": HELD_OUT_SHARE,
                "held_out_integrations": len(held_integrations),
                "labels_in_more_integrations_are_no_queries": MOST_INTEGRATIONS,
                "held_out_queries_before_the_cap": len(held_out),
            },
        },
    )


def _explanations(integration: Integration) -> Iterator[Explanation]:
    texts = integration.english
    for path, label in texts.items():
        if path[-1] in ("name", "title"):
            sibling = (*path[:-1], "description")
        elif len(path) >= 2 and path[-2] == "data":
            sibling = (*path[:-2], "data_description", path[-1])
        else:
            continue
        if sibling in texts and has_letters(label) and has_letters(texts[sibling]):
            yield Explanation(integration.name, path, sibling, label, texts[sibling])


def _passages(explanations: Iterable[Explanation]) -> tuple[list[Passage], dict[str, str]]:
    """Return one passage for each distinct text, and text key -> passage id."""
    places: dict[str, list[Explanation]] = defaultdict(list)
    for one in explanations:
        places[text_key(one.text)].append(one)
    passages = []
    ids = {}
    for key, found in places.items():
        first = found[0]
        ids[key] = "_".join(".".join((first.integration, *first.text_path)).split())
        integrations = sorted({one.integration for one in found})
        passages.append(
            Passage(
                ids[key],
                first.text,
                metadata={"component": first.integration, "label": first.label, "components": integrations},
            )
        )
    return passages, ids


def _specific(explanations: Sequence[Explanation]) -> list[Explanation]:
    """Leave out the explanations whose label, or a paragraph of whose text, too many integrations share."""
    users: dict[str, set[str]] = defaultdict(set)
    for one in explanations:
        for key in {text_key(one.label), *paragraph_keys(one.text)}:
            users[key].add(one.integration)
    return [
        one
        for one in explanations
        if all(len(users[key]) <= MOST_INTEGRATIONS for key in (text_key(one.label), *paragraph_keys(one.text)))
    ]


def _held_out_labels(specific: Sequence[Explanation], held_integrations: set[str]) -> set[str]:
    groups = Groups()
    for one in specific:
        groups.join((text_key(one.label), *paragraph_keys(one.text)))
    touched = {groups.root(text_key(one.label)) for one in specific if one.integration in held_integrations}
    return {text_key(one.label) for one in specific if groups.root(text_key(one.label)) in touched}


def _label_translations(
    integrations: Iterable[Integration], explanations: Iterable[Explanation]
) -> tuple[Meanings, Mapping[tuple[str, str], Counter[str]]]:
    """Return what translated labels mean, and (language, label key) -> its translations, counted."""
    meanings = Meanings()
    translated: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_name = {integration.name: integration for integration in integrations}
    for one in explanations:
        for lang, variants in by_name[one.integration].translations.items():
            text = next((strings[one.label_path] for strings in variants if one.label_path in strings), None)
            if text is not None and has_letters(text):
                meanings.add(lang, one.label, text)
                translated[lang, text_key(one.label)][text] += 1
    return meanings, translated


def _queries(
    specific: Iterable[Explanation],
    ids: Mapping[str, str],
    translated: Mapping[tuple[str, str], Counter[str]],
    languages: Sequence[str],
) -> Iterator[TaskQuery]:
    found: dict[str, list[Explanation]] = defaultdict(list)
    for one in specific:
        found[text_key(one.label)].append(one)
    for key, places in found.items():
        translations = {
            lang: max(counts.items(), key=lambda item: (item[1], item[0]))[0]
            for lang in languages
            if (counts := translated.get((lang, key)))
        }
        if translations:
            answers = sorted({ids[text_key(one.text)] for one in places})
            yield TaskQuery(
                f"ha-{sha256(key.encode()).hexdigest()[:12]}", places[0].label, translations, tuple(answers)
            )


def _train_passages(passages: Iterable[Passage], held_integrations: set[str], banned: set[str]) -> list[Passage]:
    kept = []
    for passage in passages:
        users = passage.metadata["components"]
        assert isinstance(users, list)
        if not held_integrations.issuperset(users) and not banned & paragraph_keys(passage.text):
            kept.append(passage)
    return kept


def _pairs(integrations: Iterable[Integration], lang: str, banned: set[str]) -> Iterator[ParallelPair]:
    seen: set[tuple[str, str]] = set()
    for integration in integrations:
        for variant in integration.translations[lang]:
            for path, translation in variant.items():
                english = integration.english.get(path)
                if english is None or not _is_worth_learning(english, translation):
                    continue
                keys = (text_key(english), text_key(translation))
                if (
                    keys[0] == keys[1]
                    or keys in seen
                    or banned & (paragraph_keys(english) | paragraph_keys(translation))
                ):
                    continue
                seen.add(keys)
                yield ParallelPair(f"homeassistant.{lang}", english, translation)


def _is_worth_learning(english: str, translation: str) -> bool:
    return max(len(english), len(translation)) <= MAX_PAIR_CHARS and has_letters(english) and has_letters(translation)
