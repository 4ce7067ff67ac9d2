"""The `debian` data set: a translated one-line synopsis finds the English description of the package.

The passage is the long description alone: the English synopsis is the query's original, and the package's name is in
many a query; both are metadata, which no encoder reads.

Descriptions that share a synopsis, a paragraph or a package's name are one family, and the hash of the family's first
name holds it out whole. Text in more than ten descriptions is boilerplate: it makes no families, and no description
with boilerplate in it is held out as an answer. The collection to evaluate on has one package of a family, so that no
near copy of the answer competes with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from drdecr.corpus import ParallelPair, Passage
from training.data.debian import Description, Package
from training.data.groups import Groups, is_held_out
from training.data.task import (
    DEMO_PASSAGES,
    DataSet,
    Meanings,
    TaskQuery,
    cap_by_language,
    choose_demo,
    held_out_texts,
    keep_clear,
    without_texts,
)
from training.data.texts import has_letters, paragraph_keys, text_key

HELD_OUT_SHARE = 0.2
MOST_DESCRIPTIONS = 10
MAX_PAIR_CHARS = 2000


class Families:
    """Packages grouped by shared text, with the side of the split and the representative of each group."""

    def __init__(self, packages: Sequence[Package]) -> None:
        counts: Counter[str] = Counter()
        for package in packages:
            counts.update(_keys(package.english))
        self._boilerplate = {key for key, count in counts.items() if count > MOST_DESCRIPTIONS}
        groups = Groups()
        for package in packages:
            groups.join((("package", package.name), *(_keys(package.english) - self._boilerplate)))
        members: dict[Hashable, list[Package]] = defaultdict(list)
        for package in packages:
            members[groups.root(("package", package.name))].append(package)
        self.held_out: list[list[Package]] = []
        self.learnable: list[list[Package]] = []
        for family in members.values():
            held_out = is_held_out(min(package.name for package in family), HELD_OUT_SHARE)
            (self.held_out if held_out else self.learnable).append(family)

    def representative(self, family: Iterable[Package], *, pure: bool) -> Package | None:
        """Return the member with a description and the most translations; a `pure` one holds no boilerplate."""
        fit = [
            package
            for package in family
            if has_letters(package.english.text)
            and text_key(package.english.synopsis) not in self._boilerplate
            and not (pure and self._boilerplate & _keys(package.english))
        ]
        return max(fit, key=lambda one: (len(one.translations), -len(one.name), one.name), default=None)


def build_debian(packages: Sequence[Package], languages: Sequence[str], facts: Mapping[str, object]) -> DataSet:
    """Make the retrieval task and the training pairs; `facts` (release, files) go into meta.json."""
    passages = [_passage(package) for package in packages if has_letters(package.english.text)]
    by_id = {passage.id: passage for passage in passages}
    families = Families(packages)
    same_synopsis: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        if package.name in by_id:
            same_synopsis[text_key(package.english.synopsis)].append(package.name)

    meanings = _meanings(packages)
    held_answers = _representatives(families, families.held_out, pure=True)
    held_out = keep_clear((_query(package, (package.name,)) for package in held_answers), meanings)
    banned = held_out_texts(held_out, by_id)
    taught = _representatives(families, families.learnable, pure=False)
    train = keep_clear(
        (_query(package, tuple(same_synopsis[text_key(package.english.synopsis)])) for package in taught), meanings
    )
    test = cap_by_language(held_out)
    learnable = sorted((package for family in families.learnable for package in family), key=lambda one: one.name)
    return DataSet(
        name="debian",
        passages=passages,
        demo=_demo(families, by_id, test),
        train_passages=[
            by_id[package.name]
            for package in learnable
            if package.name in by_id and not banned & paragraph_keys(by_id[package.name].text)
        ],
        train=without_texts(train, banned, by_id),
        test=test,
        pairs={lang: list(_pairs(learnable, lang, banned)) for lang in languages},
        facts={
            **facts,
            "licence": "as each package's; the lists carry no licence text, so use them here and do not redistribute",
            "split": {
                "rule": "by family of packages that share a synopsis, a paragraph or a name (hash of its first name)",
                "held_out_share": HELD_OUT_SHARE,
                "text_in_more_descriptions_is_boilerplate": MOST_DESCRIPTIONS,
                "families": len(families.held_out) + len(families.learnable),
                "largest_family": max(map(len, [*families.held_out, *families.learnable]), default=0),
                "held_out_queries_before_the_cap": len(held_out),
            },
        },
    )


def _keys(description: Description) -> set[str]:
    return {text_key(description.synopsis), *map(text_key, description.paragraphs), text_key(description.text)} - {""}


def _passage(package: Package) -> Passage:
    english = package.english
    return Passage(package.name, english.text, metadata={"package": package.name, "synopsis": english.synopsis})


def _meanings(packages: Iterable[Package]) -> Meanings:
    meanings = Meanings()
    for package in packages:
        for lang, found in package.translations.items():
            meanings.add(lang, package.english.synopsis, found[0].synopsis)
    return meanings


def _representatives(families: Families, groups: Iterable[Iterable[Package]], *, pure: bool) -> list[Package]:
    found = (families.representative(group, pure=pure) for group in groups)
    return sorted((package for package in found if package is not None), key=lambda package: package.name)


def _query(package: Package, answers: tuple[str, ...]) -> TaskQuery:
    translations = {lang: found[0].synopsis for lang, found in package.translations.items()}
    return TaskQuery(f"deb-{package.name}", package.english.synopsis, translations, answers)


def _demo(families: Families, by_id: Mapping[str, Passage], test: Iterable[TaskQuery]) -> list[Passage]:
    one_of_each = [
        *_representatives(families, families.held_out, pure=True),
        *_representatives(families, families.learnable, pure=False),
    ]
    worth = {package.name: len(package.translations) for package in one_of_each}
    answers = [answer for query in test for answer in query.answers]
    return choose_demo([by_id[name] for name in sorted(worth)], answers, worth, DEMO_PASSAGES)


def _pairs(packages: Iterable[Package], lang: str, banned: set[str]) -> Iterator[ParallelPair]:
    seen: set[tuple[str, str]] = set()
    for package in packages:
        for translation in package.translations.get(lang, ()):
            for english, foreign in _parts(package.english, translation):
                keys = (text_key(english), text_key(foreign))
                if keys[0] == keys[1] or keys in seen or not banned.isdisjoint(keys):
                    continue
                if (
                    max(len(english), len(foreign)) <= MAX_PAIR_CHARS
                    and has_letters(english)
                    and has_letters(foreign)
                ):
                    seen.add(keys)
                    yield ParallelPair(f"debian.{lang}", english, foreign)


def _parts(english: Description, translation: Description) -> Iterator[tuple[str, str]]:
    yield english.synopsis, translation.synopsis
    # Descriptions are translated paragraph by paragraph; another number of them means an older text.
    if len(english.paragraphs) == len(translation.paragraphs):
        yield from zip(english.paragraphs, translation.paragraphs, strict=True)
