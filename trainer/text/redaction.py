"""Removes passwords and tokens from text that is printed, logged, stored or shown."""

import re

HIDDEN = "***"
"""Replaces each secret."""
DATABASES = {
    *("postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle", "sqlite"),
    *("cockroachdb", "redshift", "snowflake", "mongodb"),
}
"""URL schemes whose user name is public. For other schemes it may be a token."""
# a password may hold / and even @
USER = (
    r"(?:(?<![\w.+-])(?P<scheme>[a-z][\w.+-]*):)?//"
    r"(?P<user>[^/:@\s'\"]*)(?::(?P<password>[^\s'\"]*))?@"
)
TOKEN_LENGTH = 16
"""A user name of at least this many characters may be a token."""
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
"""Passwords that mean: the user name is the token."""
ENCODED_USER = r"""(%3A%2F%2F)[^\s'"&]*?(?=%40)"""

PASSWORD = r"[\w.-]*?(?:password|passwd|passphrase|pwd)"
NAME = (
    rf"(?:{PASSWORD}|[\w.-]*?(?:secret|token|credentials?|signature|authorization"
    r"|(?:api|access|account|private|shared|encryption)[_-]?key)|pass|pw|sas|sig)"
)
"""Names of secrets, with any prefix: `sslpassword`, `AWS_SECRET_ACCESS_KEY`."""
IN_QUERY = r"(?:[?&](?:key|auth|code)=)"
"""Names that mark a secret only in the query of a URL."""
EQUALS = r"\s*(?:=|%3D)\s*"
OPTION = r"--[\w-]*(?:password|token|secret|key)\s+(?!-)"
LABEL = (
    rf"(?:(?<![\w.-])(?:{NAME}{EQUALS}|{NAME}\\*[\"']\s*[:=]\s*|{PASSWORD}\s*:\s+)"
    rf"|{IN_QUERY}|{OPTION})"
)
"""What comes before a secret: `token=`, `'token': `, `password: ` or `--token `."""
END = r"(?:[&;,]|%26|%3B)(?:(?=[\w.+ -]*(?:=|%3D))|(?=$))"
"""Ends a value if another pair follows. Otherwise a password may contain these characters."""
VALUE = (
    r"(?:(?P<quote>\\*[\"'])(?:\\.|(?P=quote){2}|(?!(?P=quote)).)*?(?P=quote)(?!(?P=quote))"
    r"|\{(?:[^}]|\}\})*\}"  # quoted as in ODBC
    r"|[\"'][^\n]*"  # an unclosed quote
    rf"|(?:(?!{END})[^\s'\"])+)"
)
HEADER = r"(?<![\w-])((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)"
HEADERS = HEADER + r"(\s*:\s*)[^\s'\"][^\n'\"]*"
BEARER = r"(?<!\w)(bearer\s+)[\w.~+/=-]{8,}"


def redacted(text: str) -> str:
    """A URL, or any text, without its passwords and tokens. Applied twice it changes nothing."""
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _without_user(match: re.Match[str]) -> str:
    scheme, user, password = match["scheme"] or "", match["user"], match["password"]
    before = f"{scheme}://" if scheme else "//"
    if scheme.lower().partition("+")[0] not in DATABASES and _may_be_token(user, password):
        return f"{before}{HIDDEN}@" if user or password else match[0]
    return match[0] if password is None else f"{before}{user}:{HIDDEN}@"


def _may_be_token(user: str, password: str | None) -> bool:
    if password == HIDDEN:  # already redacted
        return False
    return not user or len(user) >= TOKEN_LENGTH or (password or "").lower() in PLACEHOLDERS


def _without_value(match: re.Match[str]) -> str:
    quote = match["quote"] or ""
    return f"{match['label']}{quote}{HIDDEN}{quote}"


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
