"""Every code has a text and says how to go on."""

from trainer.data.finding_messages import CODES


def test_every_code_says_how_to_go_on() -> None:
    for code in CODES.values():
        assert code.text and (code.fix or code.severity == "note")
        assert not code.allowed or code.severity == "error"


def test_every_text_reads_well_alone_and_after_a_count() -> None:
    for name, code in CODES.items():
        first = code.text.split()[0]
        assert first not in {"a", "an", "the", "no", "one", "two", "this"}, name
        assert any(word.rstrip(":,").endswith(("s", "data")) for word in code.text.split()[:4]), (
            name
        )
        assert code.counted(1) == code.text
        assert code.counted(10) == f"10 {code.text}"
