import json

import numpy as np
import pytest

from data.codes import CodeStore
from data.conversations import conversation_turns
from data.documents import ImageRef, Turn
from data.image_library import ImageLibrary
from data.sources import SourceConfig, open_sources


def rng(seed=0):
    return np.random.default_rng(seed)


def source(vocabulary, **config):
    return open_sources([SourceConfig(**config)], vocabulary)[0]


def answer(vocabulary, document):
    return vocabulary.decode(document.labels[document.labels != -100].tolist())


def test_caption_choice(vocabulary, make_store):
    path = str(make_store(captions=["red", " ", "apple", "hand"]).path)
    canonical = source(vocabulary, kind="caption", codes=path, caption_choice="first")
    every = source(vocabulary, kind="caption", codes=path)
    assert {answer(vocabulary, canonical.document(0, rng(i))) for i in range(20)} == {"red"}
    assert {answer(vocabulary, every.document(0, rng(i))) for i in range(40)} == {"red", "apple", "hand"}
    assert every.document(2, rng(7)).input_ids.tolist() == every.document(2, rng(7)).input_ids.tolist()


def test_balance_gives_every_value_one_document_and_every_image_a_chance(vocabulary, make_store):
    path = str(make_store(num_samples=4).path)
    draw = source(vocabulary, kind="draw", codes=path, balance="group")
    assert len(draw) == 2
    rows = [{draw.document(index, rng(i)).images[0].index for i in range(40)} for index in range(2)]
    assert rows == [{0}, {1, 2, 3}]
    assert len(source(vocabulary, kind="draw", codes=path, balance="tags")) == 2  # a list is a value as well
    with pytest.raises(ValueError, match=r"'codes-0' in .* has no concept"):
        source(vocabulary, kind="caption", codes=path, balance="group,concept")
    with pytest.raises(ValueError, match="balance is for caption and draw sources"):
        SourceConfig(kind="text", path="x", balance="group")


def test_the_groups_of_a_large_store_are_found_once(vocabulary, make_store, monkeypatch):
    store = make_store(num_samples=4)
    for limit, num_read in ((5, 4), (4, 4), (4, 0)):  # too small to be kept; kept; read again
        monkeypatch.setattr("data.balance.KEPT_FROM", limit)
        read, metadata = [], CodeStore.metadata
        with monkeypatch.context() as patch:
            patch.setattr(CodeStore, "metadata", lambda s, row, r=read, m=metadata: r.append(row) or m(s, row))
            draw = source(vocabulary, kind="draw", codes=str(store.path), balance="group")
        assert len(draw) == 2 and len(read) == num_read
        assert {draw.document(1, rng(i)).images[0].index for i in range(40)} == {1, 2, 3}
    (store.path / "state.json").touch()  # another store in the same place
    monkeypatch.setattr(CodeStore, "metadata", lambda store, row: {"group": row})
    assert len(source(vocabulary, kind="draw", codes=str(store.path), balance="group")) == 4


@pytest.mark.parametrize(("num", "expected"), [(0, range(7)), (3, [0, 2, 4]), (1, [0]), (7, range(7)), (9, range(7))])
def test_a_number_of_documents_takes_them_evenly_spaced(vocabulary, make_store, num, expected):
    store = make_store(num_samples=7)
    draw = source(vocabulary, kind="draw", codes=str(store.path), caption_choice="first", num_documents=num)
    assert [draw.document(i, rng()).key for i in range(len(draw))] == [f"codes-{i}" for i in expected]
    assert draw.name == "draw" and draw.stores[0].path == store.path


def test_dropped_captions(vocabulary, make_store):
    path = str(make_store(captions=["red apple"]).path)
    draw = source(vocabulary, kind="draw", codes=path, caption_dropout=0.3)
    unconditional = vocabulary.drawing_prompt(None)
    lengths = [len(draw.document(0, rng(i))) for i in range(400)]
    dropped = lengths.count(len(unconditional) + 6 + 2)
    assert 80 < dropped < 160 and dropped + lengths.count(max(lengths)) == 400


def test_conversations(vocabulary, make_store, tmp_path):
    store = make_store()
    question = "Is there a hand?\nAnswer the question using a single word or phrase."
    messages = [{"from": "human", "value": f"{question}\n<image>"}, {"from": "gpt", "value": "Yes"}]
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([{"id": 7, "image": "codes-2.png", "conversations": messages}]))
    document = source(vocabulary, kind="conversation", codes=str(store.path), path=str(file)).document(0, rng())
    prompt = vocabulary.answering_prompt(question, store.num_patches)
    assert document.input_ids.tolist() == [*prompt, *vocabulary.encode("Yes"), vocabulary.im_end]
    assert answer(vocabulary, document) == "Yes"
    assert [image.index for image in document.images] == [2] and document.key == "7"


def test_images_of_a_conversation_keep_their_places(make_store):
    store = make_store()
    messages = [
        {"from": "human", "value": "Mix <image> with <image>"},
        {"from": "gpt", "value": "<image>\nas asked "},
        {"from": "human", "value": "Thanks"},
    ]
    record = {"image": ["codes-1", "codes-0", "codes-3"], "conversations": messages}
    one, zero, three = (ImageRef(store, i) for i in (1, 0, 3))
    assert conversation_turns(record, ImageLibrary(store), "it") == [
        Turn("user", ["Mix ", one, " with ", zero]),
        Turn("assistant", [three, "\nas asked"]),
        Turn("user", ["Thanks"]),
    ]
    text_only = {"conversations": [{"from": "human", "value": " Hi "}, {"from": "gpt", "value": "Hello"}]}
    hello = [Turn("user", ["Hi"]), Turn("assistant", ["Hello"])]
    assert conversation_turns(text_only, ImageLibrary(store), "it") == hello


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "codes-0", "conversations": [{"from": "gpt", "value": "Yes"}]}, "names 1 images but marks 0 places"),
        ({"conversations": [{"from": "gpt", "value": "<image>"}]}, "names 0 images but marks 1 places"),
        ({"image": "dog", "conversations": [{"from": "gpt", "value": "<image>"}]}, "image 'dog', which .* not hold"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": " "}]}, "has no answer"),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, "no list of messages"),
        ({"conversations": [{"from": "gpt"}]}, "no list of messages"),
        ({"conversations": [{"from": ["gpt"], "value": "Yes"}]}, "no list of messages"),
        ({}, "no list of messages"),
    ],
)
def test_bad_conversations_are_named(vocabulary, make_store, tmp_path, record, message):
    file = tmp_path / "llava.jsonl"
    file.write_text(json.dumps({"id": "c9", **record}))
    conversations = source(vocabulary, kind="conversation", codes=str(make_store().path), path=str(file))
    with pytest.raises(ValueError, match=f"conversation 'c9' of .*llava.jsonl.* {message}"):
        conversations.document(0, rng())


def test_captions_of_a_file(vocabulary, make_store, tmp_path):
    """The documents are those of a store with these captions; what cannot be used is named."""
    store, file = make_store(captions=["red apple"]), tmp_path / "captions.jsonl"
    good = [
        {"id": "a", "image": "codes-2.png", "caption": "red apple"},
        {"image": "codes-2", "captions": [" ", "hand"]},
    ]
    bad = [{"image": "codes-1"}, {"image": ["codes-1"], "caption": "red"}, {"image": "x", "captions": "red"}]
    file.write_text("\n".join(json.dumps(record) for record in [*good, *bad]))
    for kind in ("caption", "draw"):
        records = source(vocabulary, kind=kind, codes=str(store.path), path=str(file))
        ours = records.document(0, rng())
        theirs = source(vocabulary, kind=kind, codes=str(store.path)).document(2, rng())
        assert ours.key == "a" and [image.index for image in ours.images] == [2]
        for name in ("input_ids", "labels", "target_mask"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        assert "hand" in vocabulary.decode(records.document(1, rng()).input_ids.tolist())
        for index, message in enumerate(["has no caption", "has no image, a name", "has no image, a name"], start=2):
            with pytest.raises(ValueError, match=f"record '{index}' of .*captions.jsonl.* {message}"):
                records.document(index, rng())
    dropped = source(vocabulary, kind="draw", codes=str(store.path), path=str(file), caption_dropout=1.0)
    assert len(dropped.document(0, rng())) == len(vocabulary.drawing_prompt(None)) + 6 + 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "red apple\n\nhand\u2028skin\n"),
        ("t.jsonl", '{"text": "red apple"}\n{"text": "hand\u2028skin"}\n'),
        ("t.json", '[{"text": "red apple"}, {"text": "hand\u2028skin"}]'),
    ],
)
def test_texts(vocabulary, tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    texts = source(vocabulary, kind="text", path=str(tmp_path / name))
    decoded = [vocabulary.decode(texts.document(i, rng()).input_ids.tolist()) for i in range(len(texts))]
    assert decoded == ["red apple", "hand\u2028skin"]


def test_a_store_is_opened_once_and_tokenizers_do_not_mix(vocabulary, make_store):
    path = str(make_store("a").path)
    caption, draw = open_sources([SourceConfig("caption", path), SourceConfig("draw", path)], vocabulary, "tok")
    assert caption.store is draw.store
    other = str(make_store("b", tokenizer_id="other").path)
    with pytest.raises(ValueError, match="come from tokenizer other, not from tok"):
        open_sources([SourceConfig("caption", path), SourceConfig("caption", other)], vocabulary)


def test_keys_that_occur_twice_are_found_where_they_are_needed(vocabulary, make_store, tmp_path, monkeypatch):
    path = str(make_store().path)
    (tmp_path / "talks.jsonl").write_text("{}\n")
    monkeypatch.setattr("data.codes.CodeStore.key", lambda store, row: "the same")
    monkeypatch.setattr("data.key_index.KeyIndex.suspects", lambda index: [[0, 1]])
    assert len(source(vocabulary, kind="caption", codes=path)) == 4
    with pytest.raises(ValueError, match="'the same' occurs more than once in"):
        source(vocabulary, kind="conversation", codes=path, path=str(tmp_path / "talks.jsonl"))


def test_a_sample_without_a_caption_is_named(vocabulary, make_store):
    with pytest.raises(ValueError, match=r"'codes-1' in .* has no caption"):
        source(vocabulary, kind="draw", codes=str(make_store(captions=[" "]).path)).document(1, rng())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "picture"}, "kind 'picture' is unknown: choose among caption, draw"),
        ({"kind": "caption"}, "needs codes="),
        ({"kind": "draw", "images": "pictures"}, "draw source needs path="),
        ({"kind": "draw", "images": "pictures", "path": "x", "balance": "group"}, "sources without path="),
        ({"kind": "text", "path": "x", "images": "pictures"}, "images is for sources with pictures"),
        ({"kind": "conversation", "codes": "c"}, "needs path="),
        ({"kind": "caption", "codes": "c", "caption_choice": "last"}, "choose all or first"),
        ({"kind": "caption", "codes": "c", "caption_dropout": 0.1}, "for draw sources"),
        ({"kind": "draw", "codes": "c", "caption_dropout": 1.1}, "between 0 and 1"),
        ({"kind": "draw", "codes": "c", "weight": -1.0}, "is negative"),
        ({"kind": "draw", "codes": "c", "num_documents": -1}, "num_documents=-1 of a draw source is negative"),
    ],
)
def test_bad_configs(config, message):
    with pytest.raises(ValueError, match=message):
        SourceConfig(**config)


def test_bad_files(vocabulary, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*t\.txt"):
        source(vocabulary, kind="text", path=str(tmp_path / "t.txt"))
    for content, message in [
        (b"[{", "cannot be read as .json"),
        (b'{"a": 1}', "no list of records"),
        (b"[]", "is empty"),
    ]:
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            source(vocabulary, kind="text", path=str(tmp_path / "t.json"))
    (tmp_path / "t.csv").write_bytes(b"red")
    with pytest.raises(ValueError, match=r"the formats are \.jsonl, \.json and \.txt"):
        source(vocabulary, kind="text", path=str(tmp_path / "t.csv"))
