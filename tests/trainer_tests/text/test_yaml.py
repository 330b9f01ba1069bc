"""YAML with limits: every text gives plain values or one exception, in a short time."""

import pytest

from trainer.text.yaml import MAX_DEPTH, MAX_VALUES, YamlError, load_yaml


def laughs(levels: int, form: str) -> str:
    """Each level refers to the one before nine times."""
    lines = ["a0: &a0 {k: 1}"]
    for i in range(1, levels):
        lines.append(form.format(i=i, again=", ".join([f"*a{i - 1}"] * 9)))
    return "\n".join(lines)


def test_values_are_plain_and_aliases_are_resolved() -> None:
    text = "a: 1e-4\nb: no\nc: &c [x, y]\nd: *c\ne: {<<: {f: 1}}\n"
    expected = {"a": 1e-4, "b": "no", "c": ["x", "y"], "d": ["x", "y"], "e": {"f": 1}}
    assert load_yaml(text) == expected


def test_values_below_a_key_of_texts_stay_as_written() -> None:
    text = "a: {0: 007, 1: [true, 1.50], 2: , 3: 'b', 4: ''}\nb: 007\nc: {a: 1e3}\n"
    kept = {0: "007", 1: ["true", "1.50"], 2: None, 3: "b", 4: ""}
    assert load_yaml(text, key_of_texts="a") == {"a": kept, "b": 7, "c": {"a": 1e3}}
    assert load_yaml(text) == {
        "a": {**kept, 0: 7, 1: [True, 1.5]},
        "b": 7,
        "c": {"a": 1e3},
    }


@pytest.mark.parametrize("text", ["", "- a: 1", "1", "? [a]\n: 1"])
def test_a_text_without_the_key_of_texts_is_read_as_ever(text: str) -> None:
    assert load_yaml(text, key_of_texts="a") == load_yaml(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (laughs(12, "a{i}: &a{i} [{again}]"), f"more than {MAX_VALUES} values"),
        (laughs(12, "a{i}: &a{i} {{<<: [{again}], k{i}: 1}}"), f"more than {MAX_VALUES} values"),
        (laughs(12, "a{i}: &a{i} [{again}]") + "\na0: *a11", f"more than {MAX_VALUES} values"),
        ("- " * (MAX_DEPTH + 5), "nested more than"),
        ("a: " + "9" * 5000, "a number or date"),
        ("a: 2020-99-99", "a number or date"),
        ("a: *b", "undefined alias"),
        ("a: [1", "expected"),
        ("a: \x01", "unacceptable character"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)
def test_an_unreadable_text_is_reported(text: str, problem: str) -> None:
    with pytest.raises(YamlError, match=problem):
        load_yaml(text)


@pytest.mark.parametrize(
    "text", ["secret: 1\nsecret: secret", "a: *secret", "a: !secret b", "secret: [", "- secret: {"]
)
def test_the_kind_of_an_error_does_not_quote_the_text(text: str) -> None:
    with pytest.raises(YamlError) as raised:
        load_yaml(text)
    assert raised.value.line and "secret" not in raised.value.kind


def test_the_value_of_a_repeated_key_is_not_quoted() -> None:
    with pytest.raises(YamlError) as raised:
        load_yaml("password: hunter2\npassword: hunter3")
    assert '"password"' in raised.value.problem and "hunter" not in raised.value.problem
