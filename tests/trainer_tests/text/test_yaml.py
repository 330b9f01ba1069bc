"""YAML within bounds: whatever the text, plain values or one exception, at once."""

import pytest

from trainer.text.yaml import DEEP, MOST, NoYaml, load_yaml


def laughs(levels: int, form: str) -> str:
    """Each level names the one before nine times."""
    lines = ["a0: &a0 {k: 1}"]
    for i in range(1, levels):
        lines.append(form.format(i=i, again=", ".join([f"*a{i - 1}"] * 9)))
    return "\n".join(lines)


def test_values_are_plain_and_aliases_are_followed() -> None:
    text = "a: 1e-4\nb: no\nc: &c [x, y]\nd: *c\ne: {<<: {f: 1}}\n"
    expected = {"a": 1e-4, "b": "no", "c": ["x", "y"], "d": ["x", "y"], "e": {"f": 1}}
    assert load_yaml(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (laughs(12, "a{i}: &a{i} [{again}]"), f"more than {MOST} values"),
        (laughs(12, "a{i}: &a{i} {{<<: [{again}], k{i}: 1}}"), f"more than {MOST} values"),
        (laughs(12, "a{i}: &a{i} [{again}]") + "\na0: *a11", f"more than {MOST} values"),
        ("- " * (DEEP + 5), "nested more than"),
        ("a: " + "9" * 5000, "a number or date"),
        ("a: 2020-99-99", "a number or date"),
        ("a: *b", "undefined alias"),
        ("a: [1", "expected"),
        ("a: \x01", "unacceptable character"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)
def test_what_cannot_be_read_is_told_at_once(text: str, problem: str) -> None:
    with pytest.raises(NoYaml, match=problem):
        load_yaml(text)


@pytest.mark.parametrize(
    "text", ["secret: 1\nsecret: secret", "a: *secret", "a: !secret b", "secret: [", "- secret: {"]
)
def test_the_kind_of_an_error_has_no_word_of_the_text(text: str) -> None:
    with pytest.raises(NoYaml) as raised:
        load_yaml(text)
    assert raised.value.line and "secret" not in raised.value.kind


def test_the_value_of_a_key_given_twice_is_not_told() -> None:
    with pytest.raises(NoYaml) as raised:
        load_yaml("password: hunter2\npassword: hunter3")
    assert '"password"' in raised.value.problem and "hunter" not in raised.value.problem
