"""Assemble the embedded base: an untrained student that already searches, from two packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize
from tokenizers import Tokenizer
from torch import Tensor, nn

from drdecr.encoder.length_prior import LengthPrior
from drdecr.encoder.ngram_stream import NgramStream
from drdecr.encoder.query_weights import QueryWeights
from drdecr.encoder.settings import StudentSettings, write_settings
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.encoder.unigram import BEGIN, END, PADDING, UNKNOWN
from training.precision import mixed
from training.transfer import use_multilingual
from training.transfer.bridge import fit_bridge
from training.transfer.english import EnglishEncoder
from training.transfer.pieces import grow_pieces
from training.transfer.projection import fit_projection
from training.transfer.query_weights import fit_query_weights
from training.transfer.vocabulary import Neighbours, Piece, read_marked, read_wordpiece, transfer

# Untrained, the mean token score and the sentence vectors' dot product weigh the same.
SENTENCE_WEIGHT = 1.0
# On development questions over Wikipedia .022 of Recall@1 and .005 of Recall@10; on texts of a dozen tokens it costs
# less than .01 of the former.
LENGTH_PRIOR = LengthPrior(penalty=0.04, offset=64)
# Of the same questions .05 of Recall@1 and .015 of Recall@10; of queries that sum a description up, nothing.
CLOSENESS = 0.4
# Of the same passages a tenth has more than 256 pieces; cut there, Recall@10 was .015 less.
PASSAGE_LENGTH = 400
NAME = "drdecr-two-stream"


def assemble_base(
    english: EnglishEncoder,
    multilingual_wheel: Path,
    out: Path,
    *,
    sample: Sequence[tuple[str, str]],
    english_texts: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    dim: int = 128,
    sentence_weight: float = SENTENCE_WEIGHT,
    sentence_ramp: int = 1,
    piece_width: int = 0,
    name: str = NAME,
    bfloat16: bool = False,
) -> Path:
    """Write the untrained student into `out`.

    The projection to `dim` is fitted to the token features of `sample`: some hundreds of texts in the languages of
    interest, each with its English; with `bfloat16`, in mixed precision. The bridge is fitted to `english_texts`,
    some thousands, the query weights to `texts`, some thousands in each language, English among them.
    """
    tokenizer = use_multilingual.read_tokenizer(multilingual_wheel)
    stream, ngram_config = use_multilingual.read_stream(multilingual_wheel)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    special = [ids[token] for token in (BEGIN, END, PADDING)]
    encoder = TwoStreamEncoder(
        tokenizer,
        pieces=len(stream.table),
        context_config=english.config,
        ngram_config=ngram_config,
        never_scored=special,
        passage_length=PASSAGE_LENGTH,
    )
    encoder.ngram = stream
    load_context(encoder, english, transfer_vocabulary(tokenizer, stream, english))
    fit_bridge(encoder, english_texts)
    if piece_width:
        grow_pieces(encoder, piece_width)
    encoder.eval()
    with mixed(bfloat16=bfloat16):
        fitted = fit_projection(
            token_features(encoder, [foreign for foreign, _ in sample]),
            token_features(encoder, [english_text for _, english_text in sample]),
            dim,
        )
    projection = Dense(
        encoder.get_embedding_dimension(),
        dim,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=fitted,
        module_input_name="token_embeddings",
    )
    weights = QueryWeights(len(stream.table))
    with torch.no_grad():
        weights.log_weights.copy_(fit_query_weights(tokenizer, texts, weights.pieces))
    student = MultiVectorEncoder(
        modules=[encoder, projection, Normalize(module_input_name="token_embeddings"), weights], device="cpu"
    )
    student.save_pretrained(str(out), create_model_card=False)
    write_settings(
        out,
        StudentSettings(
            name=name,
            dim=dim,
            sentence_dim=stream.width,
            sentence_weight=sentence_weight,
            sentence_ramp=sentence_ramp,
            query_length=encoder.query_length,
            passage_length=encoder.passage_length,
            never_scored=tuple(special),
            pad_id=ids[PADDING],
            unknown_id=ids[UNKNOWN],
            query_weights=True,
            length_prior=LENGTH_PRIOR,
            closeness=CLOSENESS,
        ),
    )
    return out


def transfer_vocabulary(tokenizer: Tokenizer, stream: NgramStream, english: EnglishEncoder) -> Neighbours:
    """Express the stream's pieces in the English encoder's."""
    entries = tokenizer.get_vocab(with_added_tokens=True)
    names = [""] * len(stream.table)
    for entry, index in entries.items():
        names[index] = entry
    pieces = [
        Piece("", False) if entry in (BEGIN, END, PADDING, UNKNOWN) else piece
        for entry, piece in zip(names, read_marked(names), strict=True)
    ]
    english_pieces = read_wordpiece(english.vocabulary)
    with torch.no_grad():
        vectors = stream.embed(torch.arange(len(stream.table))).numpy()
    row = {entry: index for index, entry in enumerate(english.vocabulary)}
    special = {BEGIN: "[CLS]", END: "[SEP]", PADDING: "[PAD]", UNKNOWN: "[UNK]"}
    return transfer(
        pieces,
        vectors,
        english_pieces,
        place_in_space(english_pieces, tokenizer, vectors),
        special={entries[ours]: row[theirs] for ours, theirs in special.items()},
    )


def place_in_space(
    english: Sequence[Piece], tokenizer: Tokenizer, vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Place English pieces among the multilingual ones: the mean of the pieces that spell them.

    Shapes: vectors (pieces, width) -> (english, width); zeros for a piece that stands for no text.
    """
    placed = np.zeros((len(english), vectors.shape[1]), np.float32)
    for index, piece in enumerate(english):
        spelled = tokenizer.normalizer.normalize_str(piece.text) if piece.text else ""
        if not piece.starts_word:
            spelled = spelled.removeprefix("▁")
        if spelled:
            placed[index] = vectors[[token.id for token in tokenizer.model.tokenize(spelled)]].mean(axis=0)
    return placed


def load_context(encoder: TwoStreamEncoder, english: EnglishEncoder, neighbours: Neighbours) -> None:
    """Fill the contextual stream with the English encoder's layers and the transferred embeddings."""
    weights = dict(english.weights)
    embedding = encoder.context.embedding
    with torch.no_grad():
        embedding.english.copy_(weights.pop("embeddings.word_embeddings.weight"))
        embedding.rows.copy_(torch.from_numpy(neighbours.rows))
        embedding.weights.copy_(torch.from_numpy(neighbours.weights))
    known = encoder.context.bert.state_dict()
    encoder.context.bert.load_state_dict({key: value for key, value in weights.items() if key in known})


@torch.no_grad()
def token_features(encoder: TwoStreamEncoder, texts: Sequence[str], batch_size: int = 32) -> Tensor:
    """Encode texts up to the projection: (scored tokens of all texts, features)."""
    rows = []
    ordered = sorted(texts, key=len)
    device = next(encoder.parameters()).device
    for start in range(0, len(ordered), batch_size):
        read = encoder.preprocess(ordered[start : start + batch_size])
        features: dict[str, Any] = encoder(
            {key: value.to(device) if isinstance(value, Tensor) else value for key, value in read.items()}
        )
        rows.append(features["token_embeddings"][features["attention_mask"].bool()].float())
    return torch.cat(rows)
