"""GenEval: each decision rule by hand, and the summary."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.geneval import TAGS, score
from eval.geneval_rules import decide, relations
from tests.eval.scorer_inputs import run


def found(name, score=0.95, box=(0, 0, 10, 10), **more):
    return {"class": name, "score": score, "box": list(box), **more}


def right(detections, include, exclude=(), tag="two_object"):
    return decide(detections, {"tag": tag, "include": list(include), "exclude": list(exclude)})[0]


DOG = {"class": "dog", "count": 1}


def test_thresholds_are_exclusive_and_higher_for_counting():
    assert right([found("dog", 0.31)], [DOG]) and not right([found("dog", 0.3)], [DOG])
    assert not right([found("dog", 0.9)], [DOG], tag="counting") and right([found("dog", 0.91)], [DOG], tag="counting")


def test_counts_from_below_and_above():
    two, three = [{"class": "dog", "count": 2}], [{"class": "dog", "count": 3}]
    assert [right([found("dog")] * n, two, three, "counting") for n in (1, 2, 3)] == [False, True, False]
    assert not right([found("dog")] * 20, [{"class": "dog", "count": 17}])  # sixteen of a class count


def test_only_the_surest_objects_are_asked_for_their_colour():
    red = [{**DOG, "color": "red"}]
    assert right([found("dog", 0.5, color="blue"), found("dog", 0.8, color="red")], red)
    assert not right([found("dog", 0.8, color="blue"), found("dog", 0.5, color="red")], red)
    with pytest.raises(ValueError, match="no 'color'"):
        right([found("dog")], red)


def test_relations_shrink_by_a_tenth_of_both_sizes():
    assert relations([20, 0, 30, 10], [0, 0, 10, 10]) == {"right of"}
    assert relations([0, 0, 10, 10], [0, 20, 10, 30]) == {"above"}
    assert relations([0, 0, 10, 10], [2, 0, 12, 10]) == set()  # 2 − 0.1 · 20 = 0
    assert relations([20, 20, 30, 30], [0, 0, 10, 10]) == {"right of", "below"}  # (20 − 2) / 28.3 = 0.64
    assert relations([3, 0, 13, 10], [0, 0, 10, 10]) == set()  # (3 − 2) / 3 is under a half
    assert relations([0, 0, 10, 10], [0, 0, 10, 10]) == set()


def test_a_score_or_box_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="not one from 0 to 1"):
        right([found("dog"), found("dog", float("nan"))], [DOG])
    with pytest.raises(ValueError, match="not all numbers"):
        relations([0, 0, 10, float("nan")], [0, 20, 10, 30])


def test_a_position_refers_to_the_objects_of_an_earlier_clause():
    clauses = [DOG, {"class": "cat", "count": 1, "position": ["left of", 0]}]
    dog, cat = found("dog", box=(50, 0, 60, 10)), found("cat")
    assert right([dog, cat], clauses) and not right([cat, {**dog, "box": [-50, 0, -40, 10]}], clauses)
    correct, reason = decide([cat], {"tag": "position", "include": clauses})
    assert not correct and "no target for cat" in reason


def test_overall_is_the_mean_over_tags_not_over_pictures():
    rows = [{"tag": "colors", "correct": True, "metadata": "a"}] * 3
    rows += [{"tag": "counting", "correct": False, "metadata": "b"}]
    result = score(rows)
    assert (result["overall"], result["correct_images"], result["correct_prompts"]) == (0.5, 0.75, 0.5)
    assert result["per_tag"] == {"counting": 0, "colors": 1}
    assert result["warnings"]["missing_tags"] == ["single_object", "two_object", "position", "color_attr"]


ROWS = st.fixed_dictionaries(
    {"tag": st.sampled_from(TAGS), "correct": st.booleans(), "metadata": st.sampled_from("ab")}
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ROWS, min_size=1), st.randoms())
def test_order_and_duplication_change_nothing(rows, random):
    for others in (random.sample(rows, len(rows)), rows * 2):
        assert score(others)["overall"] == pytest.approx(score(rows)["overall"])
        assert score(others)["correct_prompts"] == score(rows)["correct_prompts"]


def test_a_class_that_is_never_detected_is_named(tmp_path):
    def line(name, *detections):
        metadata = {"tag": "single_object", "prompt": name, "include": [{"class": name, "count": 1}]}
        return {"filename": f"{name}.png", "metadata": metadata, "detections": list(detections)}

    rows = [line("dog", found("dog")), line("cat", found("dog")), line("fork", found("tv"), found("cat", 0.1))]
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = run("geneval", "--detections", tmp_path / "found.jsonl")
    assert result["per_tag"] == {"single_object": pytest.approx(1 / 3)}
    assert result["warnings"]["classes_asked_for_and_never_detected"] == ["fork"]
