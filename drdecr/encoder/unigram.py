"""A SentencePiece unigram model as a fast `tokenizers.Tokenizer` with the same pieces.

Ids are SentencePiece's own, plus one padding token after the last. Control and unknown pieces get a space into
their names (`<s>` is `< s>` here), because normalised text holds no space: a text that spells `</s>` is then read
as the four characters that it is, as SentencePiece reads it.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from drdecr.errors import ModelError, ResourceError

UNKNOWN = "< unk>"
BEGIN = "< s>"
END = "< /s>"
PADDING = "< pad>"

_SPACE = "▁"
# A noncharacter: Unicode reserves it for use inside a program.
_GUARD = "\ufdd0"
_NOT_LATIN_MARK = r"[\p{M}&&[^\u0300-\u036f]]"
_AFTER_SPACE_OR_MARK = rf"(?<=[\s{_SPACE}{_NOT_LATIN_MARK}])(?=\p{{M}})"
_AFTER_SYMBOL = rf"(?<=[\p{{N}}\p{{P}}\p{{S}}])(?={_NOT_LATIN_MARK})"
_UNKNOWN_TYPE, _CONTROL_TYPE = 2, 3


def tokenizer_from_sentencepiece(path: str | Path) -> Tokenizer:
    """Build the tokenizer of a SentencePiece unigram model file; it wraps a text as `BEGIN text END`.

    The padding token takes the first id after the model's own.

    Raises: ModelError for a file that is no such model, or one with settings that are not supported here;
    ResourceError without the package `sentencepiece`, which only this step needs.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise ResourceError(
            "reading a SentencePiece model needs the package `sentencepiece`: pip install 'drdecr[train]'"
        ) from None
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(Path(path).read_bytes())
    except (OSError, DecodeError) as problem:
        raise ModelError(f"{path}: no SentencePiece model ({problem})") from None
    _reject_other_settings(proto, path)

    special = (_UNKNOWN_TYPE, _CONTROL_TYPE)
    vocabulary = [(_special_name(p.piece) if p.type in special else p.piece, p.score) for p in proto.pieces]
    ids = {name: index for index, (name, _) in enumerate(vocabulary)}
    missing = [name for name in (UNKNOWN, BEGIN, END) if name not in ids]
    if missing:
        raise ModelError(f"{path}: the vocabulary lacks {', '.join(missing)}; it cannot mark where a text ends")
    vocabulary.append((PADDING, 0.0))

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=ids[UNKNOWN], byte_fallback=False))
    tokenizer.normalizer = _normalizer(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_SPACE, "merged_with_next")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[BEGIN, "$A", END],
        pair=[BEGIN, "$A", END, "$B", END],
        special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])],
    )
    return tokenizer


def _normalizer(charsmap: bytes) -> normalizers.Normalizer:
    """Chain what SentencePiece does in one pass: the character map, then spaces.

    `Precompiled` looks at one character or one short grapheme at a time where SentencePiece takes the longest
    match, so it composes neither decomposed Hangul nor kana with a voicing mark: NFC does, before and after. NFC
    alone would also sort Arabic marks, which SentencePiece does not: a guard between two such marks prevents it,
    and one after a space or a symbol keeps the mark that stands on it.
    """
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(f"{_AFTER_SPACE_OR_MARK}|{_AFTER_SYMBOL}"), _GUARD),
            normalizers.NFC(),
            normalizers.Precompiled(charsmap),
            normalizers.NFC(),
            normalizers.Replace(_GUARD, ""),
            normalizers.Replace(Regex("^ +| +$"), ""),
            normalizers.Replace(Regex(" +"), _SPACE),
            normalizers.Replace(Regex(f"{_SPACE}+$"), ""),
            normalizers.Prepend(_SPACE),
        ]
    )


def _reject_other_settings(proto: object, path: str | Path) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec  # type: ignore[attr-defined]
    if not proto.pieces or trainer.model_type != trainer.UNIGRAM:  # type: ignore[attr-defined]
        raise ModelError(f"{path}: no SentencePiece unigram model; other kinds are not supported")
    spaces = normalizer.add_dummy_prefix and normalizer.remove_extra_whitespaces and normalizer.escape_whitespaces
    if not spaces or trainer.treat_whitespace_as_suffix or trainer.byte_fallback:
        raise ModelError(f"{path}: the model treats spaces or unknown bytes in a way that is not supported")


def _special_name(piece: str) -> str:
    return piece.replace("<", "< ", 1)
