"""Measure a student on other programs' interface texts: the English of a translated text is to be found.

Languages without questions to ask (Thai above all) can be compared with others so. The texts are those of packages
that `drdecr data fetch interfaces` does not read, less all English texts that `--seen` (its directory) holds in any
language; other text that was trained on may say the same. A language's queries are some of its texts; the passages
are the English of all queries. Short texts say little, so that even a reader of both languages would miss some.

Example: python benchmarks/unseen_interfaces.py --student models/drdecr-16 --seen data/interfaces --work runs/unseen
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import fmean

import numpy as np

from drdecr.corpus import read_pairs
from drdecr.encoder.load import load_encoder
from drdecr.encoder.windows import encode_windows
from training.data.apt_packages import download_packages
from training.data.interfaces.fetch import read_texts
from training.data.languages import gettext_locales
from training.data.texts import text_key
from training.evaluation.ranking import relevance_of_passages

PACKAGES = [
    "eog",
    "file-roller",
    "gedit-common",
    "gimp-data",
    "gnome-terminal-data",
    "gnumeric-common",
    "gucharmap",
    "seahorse",
]
SHORTEST = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--languages", default="ar,de,es,fr,it,ja,ko,nl,pl,pt,ru,th,tr,zh")
    parser.add_argument("--queries", type=int, default=300, help="a language at most")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    languages = options.languages.split(",")
    seen = {text_key(pair.english) for path in options.seen.glob("*.tsv.gz") for pair in read_pairs(path)}
    langs = {locale: lang for lang in languages for locale in gettext_locales(lang)}
    found: dict[str, dict[str, str]] = {lang: {} for lang in languages}
    for _, package in sorted(download_packages(options.work, PACKAGES).items()):
        for lang, english, translation in read_texts(package, langs):
            if len(english) >= SHORTEST and text_key(english) not in seen:
                found[lang].setdefault(english, translation)
    asked = {
        lang: random.Random(0).sample(sorted(some.items()), min(options.queries, len(some)))
        for lang, some in found.items()
    }
    texts = sorted({english for some in asked.values() for english, _ in some})
    encoder = load_encoder(options.student, threads=options.threads)
    passages = encode_windows(encoder, texts)
    places = {english: at for at, english in enumerate(texts)}
    means = []
    for lang, some in asked.items():
        scores = relevance_of_passages(encoder.encode([own for _, own in some], "query"), passages, encoder.spec)
        wanted = scores[np.arange(len(some)), [places[english] for english, _ in some]]
        ranks = (scores > wanted[:, None]).sum(axis=1)
        means.append([float((ranks < k).mean()) for k in (1, 10)])
        print(
            json.dumps({"language": lang, "queries": len(some), "recall": np.round(means[-1], 3).tolist()}),
            flush=True,
        )
    print(
        json.dumps({"passages": len(texts), "mean": [round(fmean(values), 3) for values in zip(*means, strict=True)]})
    )


if __name__ == "__main__":
    main()
