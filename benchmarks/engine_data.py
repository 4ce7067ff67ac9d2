"""Make the vectors of the engine benchmark: English Debian descriptions under a small encoder, 128 dimensions.

A passage is a package's synopsis and a part of its description, about 51 tokens together; passages of equal text are
kept once. A query is the first 32 tokens of a description whose package is not in the collection, so that every one
of its tokens is a real one and its best answers are packages like it. Vectors are the encoder's 384 dimensions,
projected by a PCA (not centred, of some of the passages) and L2-normalised.

The data set comes from `drdecr data fetch debian`, the encoder is the teacher that `drdecr quickstart` assembles.

Example: python benchmarks/engine_data.py --data data/debian --encoder models/teacher --out engine-data
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.torch_runtime import TorchEncoder, fast_tokenizer
from training.precision import in_bfloat16, mixed

PASSAGES, QUERIES, QUERY_TOKENS, DIM = 100_000, 400, 32, 128
PART_TOKENS = 65
CHUNK_PASSAGES = 2048


def read_texts(data: Path, encoder: TorchEncoder) -> tuple[list[str], list[str]]:
    """Return the passages, in random order, and the queries' texts."""
    lines = [json.loads(line) for line in (data / "passages.jsonl").open(encoding="utf-8")]
    packages = [(each["metadata"]["synopsis"], re.sub(r"\s+", " ", each["text"]).strip()) for each in lines]
    tokenizer = fast_tokenizer(encoder.model)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    sentences = sorted({part for synopsis, text in packages for part in (synopsis, *split(text))})
    lengths = {
        text: len(found.ids) - 2 for text, found in zip(sentences, tokenizer.encode_batch(sentences), strict=True)
    }
    rng = np.random.default_rng(0)
    order = rng.permutation(len(packages)).tolist()
    held_out, queries = set(), []
    for i in order:
        if len(queries) == QUERIES:
            break
        if sum(lengths[part] for part in split(packages[i][1])) >= QUERY_TOKENS:
            held_out.add(i)
            queries.append(packages[i][1])
    passages: dict[str, None] = {}
    for i in order:
        if i not in held_out:
            passages.update(dict.fromkeys(parts(*packages[i], lengths)))
    kept = list(passages)
    if len(kept) < PASSAGES:
        sys.exit(f"{data} gives {len(kept)} passages, {PASSAGES} are wanted")
    chosen = rng.permutation(len(kept))[:PASSAGES]
    return [kept[i] for i in chosen], queries


def split(text: str) -> list[str]:
    return re.split(r"(?<=[.!?:;]) ", text)


def parts(synopsis: str, text: str, lengths: dict[str, int]) -> list[str]:
    """Pack a description's sentences into passages of at most PART_TOKENS, each after the synopsis."""
    packed: list[list[str]] = []
    room = 0
    for sentence in split(text):
        if not packed or lengths[sentence] > room:
            packed.append([synopsis + ":"])
            room = PART_TOKENS - lengths[synopsis]
        packed[-1].append(sentence)
        room -= lengths[sentence]
    return [" ".join(sentences) for sentences in packed]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a directory of `drdecr data fetch debian`")
    parser.add_argument("--encoder", type=Path, required=True, help="a late-interaction encoder's directory")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    encoder = TorchEncoder.load(options.encoder, threads=options.threads)
    passages, queries = read_texts(options.data, encoder)
    options.out.mkdir(parents=True, exist_ok=True)
    chunks = [passages[start : start + CHUNK_PASSAGES] for start in range(0, len(passages), CHUNK_PASSAGES)]
    with mixed(bfloat16=in_bfloat16("auto")):
        sample = encoder.encode(chunks[0], "passage").vectors
        values, directions = np.linalg.eigh(sample.T @ sample)
        projection = np.ascontiguousarray(directions[:, ::-1][:, :DIM])
        print(f"{values[::-1][:DIM].sum() / values.sum():.3f} of the variance in {DIM} dimensions", flush=True)
        asked = [encoder.encode([text], "query").vectors[:QUERY_TOKENS] for text in queries]
        np.save(options.out / "queries.npy", unit(np.stack(asked) @ projection))
        offsets = [np.zeros(1, np.int64)]
        with (options.out / "vectors.f16").open("wb") as file:
            for i, chunk in enumerate(chunks):
                found = encoder.encode(chunk, "passage")
                file.write(unit(found.vectors @ projection).astype("<f2").tobytes())
                offsets.append(found.offsets[1:] + offsets[-1][-1])
                file.flush()
                np.save(options.out / "offsets.npy", np.concatenate(offsets))
                print(f"{i + 1} of {len(chunks)}: {offsets[-1][-1]} token vectors", flush=True)
    np.save(options.out / "vectors.npy", np.memmap(options.out / "vectors.f16", "<f2", "r").reshape(-1, DIM))
    (options.out / "vectors.f16").unlink()
    tokens = int(offsets[-1][-1])
    print(f"{len(passages)} passages, {tokens} token vectors, {tokens / len(passages):.1f} a passage")


if __name__ == "__main__":
    main()
