"""Counts in sentences."""


def counted(number: float, noun: str, plural: str = "", zero: str = "0") -> str:
    """`1 trial`, `0.5 GPU`, `2 trials`, `0 trials`.

    Args:
        number: How many; a float is shown without trailing zeros.
        noun: The noun in the singular.
        plural: The noun in the plural; by default it gets an `s`.
        zero: What stands for 0.
    """
    digits = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{digits if number else zero} {noun if 0 < number <= 1 else plural or f'{noun}s'}"
