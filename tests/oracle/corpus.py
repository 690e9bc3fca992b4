"""PostgreSQL's own regression scripts: where they come from, and psql's reading of them."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"
SUITES = ("sid", "trixie", "experimental")
PACKAGES = ("postgresql-18", "postgresql-17")
"""Debian's source packages, the first one that there is; 18 is what the embedded server is."""
TIMEOUT = 300  # seconds for one call of apt-get
WANTED = re.compile(
    r"[^/]+/(src/test/regress/(sql|data|parallel_schedule)|contrib/\w[^/]*/(sql/|data/|Makefile$))"
)


def fetch(work: Path, packages: tuple[str, ...] = PACKAGES) -> Path:
    """The scripts and data of PostgreSQL below `work`, from the archive of Debian's source
    `packages`, the first one that there is.

    Needs apt-get, which gets directories of its own as in scripts/debian-programs, and no root.
    """
    if found := sorted(work.glob("postgresql-*/src/test/regress/parallel_schedule")):
        return found[0].parents[3]
    if shutil.which("apt-get") is None:
        raise RuntimeError("PostgreSQL's sources come from Debian's mirror: apt-get is missing")
    apt = work / "apt"
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    sources = [f"deb-src [signed-by={KEYS}] {MIRROR} {suite} main\n" for suite in SUITES]
    (apt / "sources").write_text("".join(sources))
    options = {
        "Dir::Etc::sourcelist": apt / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::status": apt / "status",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt,
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*command, "update"], check=True, cwd=apt, timeout=TIMEOUT)
    for package in packages:
        subprocess.run(
            [*command, "source", "--download-only", "--tar-only", package],
            check=False, cwd=apt, timeout=TIMEOUT,
        )  # fmt: skip
        if archives := sorted(apt.glob("*.orig.tar.*")):
            with tarfile.open(archives[-1]) as packed:
                members = [m for m in packed if WANTED.match(m.name)]
                packed.extractall(work, members, filter="data")
            shutil.rmtree(apt)
            return fetch(work, packages)
    raise RuntimeError(f"Debian has the source of none of {', '.join(packages)}")


def schedule(root: Path) -> list[Path]:
    """The core's scripts, in the order of its schedule."""
    regress = root / "src/test/regress"
    lines = (regress / "parallel_schedule").read_text().splitlines()
    names = [n for line in lines if line.startswith("test:") for n in line.split()[1:]]
    return [path for name in names if (path := regress / f"sql/{name}.sql").exists()]


def contrib(root: Path) -> dict[str, list[Path]]:
    """The scripts of each extension that is shipped with PostgreSQL, in the order of each."""
    found: dict[str, list[Path]] = {}
    for makefile in sorted(root.glob("contrib/*/Makefile")):
        text = makefile.read_text().replace("\\\n", " ")
        line = re.search(r"^REGRESS\s*=(.*)", text, re.MULTILINE)
        paths = [makefile.parent / f"sql/{name}.sql" for name in (line[1].split() if line else ())]
        if paths := [path for path in paths if path.exists()]:
            found[makefile.parent.name] = paths
    return found


@dataclass(slots=True)
class Statement:
    r"""What psql would send, and what it would do with the answer.

    Attributes:
        text: without comments before it.
        line: where its end stands in its script.
        ended: the backslash command that ended it, such as "gset"; empty for a semicolon.
        argument: of that command.
        params: what ``\bind`` gave, to be sent apart from the text.
    """

    text: str
    line: int
    ended: str = ""
    argument: str = ""
    params: list[str] | None = None


@dataclass(slots=True)
class Connect:
    r"""psql's ``\c``: a new session, of `user` and to `database` where these are not empty."""

    database: str = ""
    user: str = ""


_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* )
    | (?P<nested> /\* )
    | (?P<escaped> (?<![\w$]) [eE] ' (?: [^'\\] | '' | \\. )* ' )
    | (?P<string> ' (?: [^'] | '' )* ' )
    | (?P<quoted> " (?: [^"] | "" )* " )
    | (?P<dollars> (?<![\w$]) \$ (?: [A-Za-z_\x80-\uffff] [\w]* )? \$ )
    | (?P<variable> (?<! :) : (?: \{\?\w+\} | '\w+' | "\w+" | \w+ ) )
    | (?P<backslash> \\ )
    | (?P<word> [A-Za-z_\x80-\uffff] [\w$]* )
    | (?P<other> [0-9][\w.]* | ::? | \s+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_COMMENT = re.compile(r"/\*|\*/")
_LEADING = re.compile(r"(?: \s+ | --[^\n]*(?:\n|$) )+", re.VERBOSE)
_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")
_ARGUMENT = re.compile(
    r"""\s* (?P<item> (?: '(?:[^'\\]|''|\\.)*' | "(?:[^"]|"")*" | `[^`]*` | [^\s\\'"`] )+ )""",
    re.VERBOSE | re.DOTALL,
)
_SENDS = ("g", "gx", "gset", "gexec", "crosstabview", "watch", "sendpipeline")
_FORGETS = ("gdesc", "parse", "r", "reset", "bind_named", "close_prepared", "close")
_TRUE = ("1", "true", "t", "yes", "y", "on")


class Script:
    r"""One script as psql reads it: iterate over it, and do what comes before asking for more.

    Args:
        text: the script.
        environment: what ``\getenv`` finds.

    Attributes:
        variables: psql's; the caller puts there what ``\gset`` found.
    """

    def __init__(self, text: str, environment: dict[str, str] | None = None) -> None:
        self._text = text
        self._at = 0
        self._environment = environment or {}
        self.variables: dict[str, str] = {"HOST": "127.0.0.1", "DBNAME": "regression"}
        # For each \if: whether its branch is read, whether one was, and whether it may be at all.
        self._branches: list[list[bool]] = []
        self._params: list[str] | None = None
        self._buffer: list[str] = []

    def __iter__(self) -> Iterator[Statement | Connect]:
        buffer, words = self._buffer, [""]
        parens = blocks = 0
        while self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            assert found is not None
            kind, token = found.lastgroup, found[0]
            self._at = found.end()
            if kind == "comment":
                token = ""
            elif kind == "nested":
                self._skip_comment()
                token = " "
            elif kind == "dollars":
                end = self._text.find(token, self._at)
                end = len(self._text) if end < 0 else end + len(token)
                token, self._at = self._text[found.start() : end], end
            elif kind == "variable":
                token = self._variable(token)
            elif kind == "backslash":
                active = self._active
                done = yield from self._command()
                if done or (active and not buffer):
                    words, parens, blocks = [""], 0, 0
                continue
            elif kind == "word":
                words.append(token.lower())
                start = " ".join(words[1:5])
                if parens == 0 and _ROUTINE.match(start):
                    if token.lower() == "begin" or (token.lower() == "case" and blocks):
                        blocks += 1
                    elif token.lower() == "end" and blocks:
                        blocks -= 1
            elif token in "()":
                parens = max(0, parens + (1 if token == "(" else -1))
            if not self._active:
                continue
            if token == ";" and kind == "other" and not parens and not blocks:
                statement = self._statement()
                words = [""]
                if statement:
                    yield statement
                continue
            buffer.append(token)
        if statement := self._statement():
            yield statement

    def data(self) -> str:
        r"""The lines after the present one up to ``\.``, which are not read as statements."""
        start = self._text.find("\n", self._at) + 1 or len(self._text)
        end = re.compile(r"^\\\.\r?\n?", re.MULTILINE).search(self._text, start)
        stop, after = (end.start(), end.end()) if end else (len(self._text), len(self._text))
        found = self._text[start:stop]
        self._text = self._text[:start] + self._text[after:]
        return found

    def has_data(self) -> bool:
        """Whether what follows looks like data of a COPY, and not like statements."""
        start = self._text.find("\n", self._at) + 1 or len(self._text)
        for line in self._text[start:].splitlines():
            if line.rstrip() == "\\.":
                return True
            if line.rstrip().endswith(";"):
                return False
        return False

    @property
    def _active(self) -> bool:
        return all(branch[0] for branch in self._branches)

    def _skip_comment(self) -> None:
        depth = 1
        while depth:
            found = _BLOCK_COMMENT.search(self._text, self._at)
            if found is None:
                self._at = len(self._text)
                return
            depth += 1 if found[0] == "/*" else -1
            self._at = found.end()

    def _variable(self, token: str) -> str:
        name = token[1:]
        if name.startswith("{?"):
            return "TRUE" if name[2:-1] in self.variables else "FALSE"
        value = self.variables.get(name.strip("'\""))
        if value is None:
            return token
        if name.startswith("'"):
            return "'" + value.replace("'", "''") + "'"
        return '"' + value.replace('"', '""') + '"' if name.startswith('"') else value

    def _statement(self, ended: str = "", argument: str = "") -> Statement | None:
        text = "".join(self._buffer).strip()
        self._buffer.clear()
        text = _LEADING.sub("", text, count=1) if text.startswith("--") else text
        params, self._params = self._params, None
        if not text:
            return None
        return Statement(text, self._text.count("\n", 0, self._at) + 1, ended, argument, params)

    def _command(self) -> Generator[Statement | Connect, None, bool]:
        """After a backslash: read a command and do it; tell whether it ended a statement."""
        if self._text[self._at : self._at + 1] in (";", ":"):
            if self._active:
                self._buffer.append(self._text[self._at])
            self._at += 1
            return False
        found = re.compile(r"[^\s\\]*").match(self._text, self._at)
        assert found is not None
        name, self._at = found[0].rstrip("+"), found.end()
        if name in ("if", "elif", "else", "endif"):
            self._branch(name)
            return False
        if not self._active:
            self._arguments()
            return False
        if name == "copy":
            end = self._text.find("\n", self._at)
            end = len(self._text) if end < 0 else end
            line, self._at = self._text[self._at : end], end
            kept = list(self._buffer)
            self._buffer[:] = ["COPY" + line]
            if re.search(r"\b(from\s+stdin|to\s+stdout)\b", line, re.IGNORECASE):
                yield from filter(None, [self._statement()])
            self._buffer[:] = kept
            return False
        arguments = self._arguments()
        if name in ("q", "quit"):
            self._at = len(self._text)
            self._buffer.clear()
        elif name in ("c", "connect"):
            database, user, *_ = (*arguments, "", "")
            yield Connect(database.replace("-", ""), user.replace("-", ""))
        elif name == "set" and arguments:
            self.variables[arguments[0]] = "".join(arguments[1:])
        elif name == "getenv" and len(arguments) == 2 and arguments[1] in self._environment:
            self.variables[arguments[0]] = self._environment[arguments[1]]
        elif name == "unset" and arguments:
            self.variables.pop(arguments[0], None)
        elif name == "bind":
            self._params = arguments
        elif name in _SENDS:
            if statement := self._statement(name, arguments[0] if arguments else ""):
                yield statement
            return True
        elif name in _FORGETS:
            self._buffer.clear()
            self._params = None
            return True
        return False

    def _branch(self, name: str) -> None:
        arguments = self._arguments()
        true = bool(arguments) and arguments[0].lower() in _TRUE
        if name == "if":
            self._branches.append([self._active and true, self._active and true, self._active])
        elif self._branches:
            now = self._branches[-1]
            if name == "endif":
                self._branches.pop()
            else:
                now[0] = now[2] and not now[1] and (name == "else" or true)
                now[1] = now[1] or now[0]

    def _arguments(self) -> list[str]:
        """The rest of the line, or up to the next backslash, as psql takes it apart."""
        found = []
        while self._at < len(self._text):
            space = re.compile(r"[ \t\r\f\v]*").match(self._text, self._at)
            assert space is not None
            at = space.end()
            if self._text.startswith("\\\\", at):
                self._at = at + 2
                break
            item = _ARGUMENT.match(self._text, at)
            if self._text[at : at + 1] in ("\n", "\\", "") or item is None:
                self._at = at
                break
            self._at = item.end()
            found.append(self._unquoted(item["item"]))
        return found

    def _unquoted(self, item: str) -> str:
        if item.startswith(":"):
            whole = _TOKEN.fullmatch(item)
            if whole and whole.lastgroup == "variable":
                value = self.variables.get(item[1:].strip("'\""))
                if item.startswith(":{") or value is None:
                    return self._variable(item)
                return value if not item.startswith(":'") else self._variable(item)
        if item.startswith("'") and item.endswith("'") and len(item) > 1:
            return re.sub(r"\\(.)", r"\1", item[1:-1].replace("''", "'"))
        return item
