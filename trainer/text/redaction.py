"""Passwords and tokens out of whatever is printed, logged, stored or shown."""

import re

HIDDEN = "***"
DATABASES = {
    *("postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle", "sqlite"),
    *("cockroachdb", "redshift", "snowflake", "mongodb"),
}
"""Schemes of URLs whose user is no secret; of the others it may be a token."""
# a password may hold / and even @
USER = (
    r"(?:(?<![\w.+-])(?P<scheme>[a-z][\w.+-]*):)?//"
    r"(?P<user>[^/:@\s'\"]*)(?::(?P<password>[^\s'\"]*))?@"
)
LONG = 16
"""Characters from which on a user may be a token."""
PLACEHOLDERS = {
    "",
    "x",
    "-",
    "_",
    "x-oauth-basic",
    "oauth2",
    "unused",
    "none",
    "token",
    "api_token",
}
"""What stands for a password where the user is the token."""
ENCODED_USER = r"""(%3A%2F%2F)[^\s'"&]*?(?=%40)"""

PASSWORD = r"[\w.-]*?(?:password|passwd|passphrase|pwd)"
NAME = (
    rf"(?:{PASSWORD}|[\w.-]*?(?:secret|token|credentials?|signature|authorization"
    r"|(?:api|access|account|private|shared|encryption)[_-]?key)|pass|pw|sas|sig)"
)
"""What a secret is called, whatever comes before: `sslpassword`, `AWS_SECRET_ACCESS_KEY`."""
IN_QUERY = r"(?:[?&](?:key|auth|code)=)"
"""What is a secret in a URL's query alone."""
EQUALS = r"\s*(?:=|%3D)\s*"
OPTION = r"--[\w-]*(?:password|token|secret|key)\s+(?!-)"
LABEL = (
    rf"(?:(?<![\w.-])(?:{NAME}{EQUALS}|{NAME}\\*[\"']\s*[:=]\s*|{PASSWORD}\s*:\s+)"
    rf"|{IN_QUERY}|{OPTION})"
)
"""`token=`, `'token': `, `password: ` and `--token `, with which a secret begins."""
END = r"(?:[&;,]|%26|%3B)(?:(?=[\w.+ -]*(?:=|%3D))|(?=$))"
"""Where another pair follows; else a password may hold these characters."""
VALUE = (
    r"(?:(?P<quote>\\*[\"'])(?:\\.|(?P=quote){2}|(?!(?P=quote)).)*?(?P=quote)(?!(?P=quote))"
    r"|\{(?:[^}]|\}\})*\}"  # as ODBC quotes
    r"|[\"'][^\n]*"  # a quote that is never closed
    rf"|(?:(?!{END})[^\s'\"])+)"
)
HEADER = r"(?<![\w-])((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)"
HEADERS = HEADER + r"(\s*:\s*)[^\s'\"][^\n'\"]*"
BEARER = r"(?<!\w)(bearer\s+)[\w.~+/=-]{8,}"


def redacted(text: str) -> str:
    """A URL, or any text, without its passwords and tokens; redacted again it stays as it is."""
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _without_user(found: re.Match[str]) -> str:
    scheme, user, password = found["scheme"] or "", found["user"], found["password"]
    before = f"{scheme}://" if scheme else "//"
    if scheme.lower().partition("+")[0] not in DATABASES and _may_be_token(user, password):
        return f"{before}{HIDDEN}@" if user or password else found[0]
    return found[0] if password is None else f"{before}{user}:{HIDDEN}@"


def _may_be_token(user: str, password: str | None) -> bool:
    if password == HIDDEN:  # told before
        return False
    return not user or len(user) >= LONG or (password or "").lower() in PLACEHOLDERS


def _without_value(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return f"{found['label']}{quote}{HIDDEN}{quote}"


PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (USER, _without_user),
        (ENCODED_USER, rf"\1{HIDDEN}"),
        (HEADERS, rf"\1\2{HIDDEN}"),
        (BEARER, rf"\1{HIDDEN}"),
        (f"(?P<label>{LABEL}){VALUE}", _without_value),
    )
]
