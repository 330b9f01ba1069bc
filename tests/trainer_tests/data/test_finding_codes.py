"""Every code has a text and says how to go on."""

from trainer.data.finding_codes import CODES


def test_every_code_says_how_to_go_on() -> None:
    for code in CODES.values():
        assert code.what and (code.mend or code.severity == "note")
        assert not code.allowed or code.severity == "error"
