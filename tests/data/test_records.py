import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import records
from data.records import Records


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(records, "CHUNK", 7)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text(max_size=12).filter(lambda t: not {"\r", "\n"} & set(t)), max_size=8), end=st.booleans())
def test_lines_are_those_of_python(tmp_path_factory, texts, end):
    file = tmp_path_factory.mktemp("lines") / "t.txt"
    file.write_bytes(("\r\n".join(texts) + "\n" * end).encode(errors="replace"))
    expected = [line for line in file.read_bytes().decode().replace("\r\n", "\n").split("\n") if line.strip(" \t\v\f")]
    found = Records(str(file))
    assert [found[i]["text"] for i in range(len(found))] == expected


documents = st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=6) | st.lists(st.integers(), max_size=2)))


@settings(deadline=None, max_examples=60)
@given(documents=documents, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_json_lists_and_json_lines_give_every_record(tmp_path_factory, documents, ascii_only, indent):
    folder = tmp_path_factory.mktemp("json")
    dump = lambda value, **kw: json.dumps(value, ensure_ascii=ascii_only, **kw).encode(errors="replace")  # noqa: E731
    (folder / "a.json").write_bytes(dump(documents, indent=indent))
    (folder / "a.jsonl").write_bytes(b"\n\n".join(dump(d) for d in documents))
    for name in ("a.json", "a.jsonl"):
        found = Records(str(folder / name))
        assert [dump(found[i]) for i in range(len(found))] == [dump(d) for d in documents]


def test_one_bad_record_does_not_cost_the_file(tmp_path):
    lines = [b'{"a": 1}', b'{"a": "\xff"}', b"{no", b"[1]", b'{"a": 2}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xc3\xa9"}, {"a": "\xff"}, {"a": "\xc3\xa9"}]')
    found, listed = Records(str(tmp_path / "a.jsonl")), Records(str(tmp_path / "a.json"))
    assert (found[0], found[4]) == ({"a": 1}, {"a": 2}) and listed[0] == listed[2] == {"a": "é"}
    for index, message in ((1, "UTF-8"), (2, "not valid JSON"), (3, "no JSON object")):
        with pytest.raises(ValueError, match=rf"record {index} of '.*a\.jsonl' is .*{message}"):
            found[index]
    with pytest.raises(ValueError, match=r"record 1 of '.*a\.json' is not valid UTF-8"):
        listed[1]


def test_the_index_of_a_large_file_is_kept_and_made_again_when_the_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    Records(str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]  # small: nothing beside it
    monkeypatch.setattr(records, "KEPT_FROM", 1)
    assert len(Records(str(file))) == 2
    monkeypatch.setattr(records, "_line_spans", None)  # not looked through again
    found = Records(str(file))
    assert [found[i]["text"] for i in range(2)] == ["one", "two"]
    monkeypatch.undo()
    file.write_text("three\n")
    os.utime(file, (1, 1))
    assert Records(str(file))[0]["text"] == "three"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "cannot be read as .json"),
        ('[{"a": 1}', "ends within its list"),
        ('[{"a": 1} {"a": 2}]', "no comma after record 0"),
        ('{"a": 1}', "no list of records"),
        ("[1]", "no list of records"),
        ("", "ends within its list"),
    ],
)
def test_broken_lists(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Records(str(tmp_path / "a.json"))
