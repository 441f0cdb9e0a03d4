"""Parts: whole or absent, in order, and made again where anything that decides them changed."""

import torch

from eval.parts import Parts, fingerprint


def write(parts: Parts, number: int, places: list[int]) -> None:
    parts.write(number, [{"place": place} for place in places], {"x": torch.tensor(places) * 10} if places else {})


def test_parts_come_back_in_order_whoever_wrote_first(tmp_path):
    parts = Parts(tmp_path / "parts", "a", num_images=7, size=3)
    assert parts.missing() == [0, 1, 2] and [parts.num_places(n) for n in parts.numbers] == [3, 3, 1]
    write(parts, 2, [6])
    write(parts, 0, [0, 2])  # picture 1 was bad
    assert parts.missing() == [1]
    write(parts, 1, [])  # all bad
    assert parts.missing() == []
    assert [sample["place"] for sample in parts.samples()] == [0, 2, 6]
    assert parts.joined("x").tolist() == [0, 20, 60] and len(list(parts.tensors("x"))) == 2


def test_other_choices_and_damage_make_a_part_again(tmp_path):
    parts = Parts(tmp_path, "a", num_images=4, size=2)
    write(parts, 0, [0, 1])
    write(parts, 1, [2, 3])
    assert Parts(tmp_path, "b", 4, 2).missing() == [0, 1]
    file = tmp_path / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    (tmp_path / "00000.partial").touch()  # what a kill leaves
    assert parts.missing() == [1]
    assert Parts(tmp_path, "a", 6, 2).missing() == [1, 2]


def test_a_fingerprint_knows_choices_and_files(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    before = fingerprint({"size": 1}, [str(model), "name/on-the-hub"])
    assert fingerprint({"size": 1}, [str(model), "name/on-the-hub"]) == before
    assert fingerprint({"size": 2}, [str(model), "name/on-the-hub"]) != before
    assert fingerprint({"size": 1}, [str(model), "another/on-the-hub"]) != before
    (model / "weights").write_bytes(b"12")
    assert fingerprint({"size": 1}, [str(model), "name/on-the-hub"]) != before
