"""Class names, templates and captions from text files: the shipped lists, and what is refused."""

from pathlib import Path

import pytest

from eval.class_texts import flickr8k, templated_classes

IMAGENET = Path(__file__).parents[2] / "assets/imagenet"


def test_the_shipped_lists_are_those_of_imagenet():
    described = templated_classes(IMAGENET / "classes.txt", IMAGENET / "templates.txt")
    assert described.num_classes == 1000 and len(described.texts) == 80_000
    synsets = [label for label in described.class_of_label if isinstance(label, str)]
    assert synsets == sorted(synsets)  # the order of the folders, which is that of the labels
    # As every list of ImageNet has them: class 0 and class 207.
    for label, number, name in (
        ("n01440764", 0, "tench"),
        ("n02099601", 207, "Golden Retriever"),
        ("n15075141", 999, ""),
    ):
        assert described.class_of_label[label] == described.class_of_label[number] == number
        assert name in described.texts[number * 80]
    assert described.texts[:2] == ["a bad photo of a tench.", "a photo of many tench."]
    assert described.text_class[79:81] == [0, 1]


def test_a_list_of_names_alone(tmp_path):
    (tmp_path / "names").write_text("cat\n\nlarge dog \n")
    (tmp_path / "templates").write_text("a {}.\n{}\n")
    described = templated_classes(tmp_path / "names", tmp_path / "templates")
    assert described.class_of_label["large dog"] == 1
    assert described.texts == ["a cat.", "cat", "a large dog.", "large dog"]


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ("cat\ncat\n", "a {}", "holds the class 'cat' twice"),
        ("cat\n", "a cat", r"the template 'a cat' must hold \{\} once"),
        ("\n", "a {}", "is empty"),
        (None, "a {}", "does not exist"),
    ],
)
def test_wrong_lists_are_one_sentence(tmp_path, names, templates, message):
    if names is not None:
        (tmp_path / "names").write_text(names)
    (tmp_path / "templates").write_text(templates)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        templated_classes(tmp_path / "names", tmp_path / "templates")


def test_flickr8k_captions_with_commas(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "c.txt").write_text('image,caption\n1.jpg,a dog, running .\n2.jpg,"a" cat\n1.jpg,the same dog\n')
    data = flickr8k(tmp_path / "c.txt", tmp_path)
    assert data.files == [tmp_path / "1.jpg", tmp_path / "2.jpg"]
    assert data.captions == ["a dog, running .", '"a" cat', "the same dog"]
    assert data.caption_file == [0, 1, 0]
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 pictures of .* are missing, .*2\.jpg for one"):
        flickr8k(tmp_path / "c.txt", tmp_path)
    (tmp_path / "c.txt").write_text("image,caption\n1.png;a dog\n")
    with pytest.raises(ValueError, match="line 2 is not"):
        flickr8k(tmp_path / "c.txt", tmp_path)
    (tmp_path / "c.txt").write_text("image,caption\n")
    with pytest.raises(ValueError, match="no captions"):
        flickr8k(tmp_path / "c.txt", tmp_path)
