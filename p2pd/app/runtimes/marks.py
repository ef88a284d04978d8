"""Our part of a configuration file that is not ours: a block between two comment lines.

The block carries what undoing it needs: the lines that it stands for, whether the file and which
directories were made for it, whether the file ended without a line break. So `strip` gives back
every byte, and what others wrote around the block stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pd.model.errors import ConfigError

__all__ = ["Made", "append", "insert", "lines_of", "strip"]

_BEGIN = '# >>> p2pd: made by "p2pd runtime install", taken out by "p2pd runtime remove"'
_END = "# <<< p2pd\n"
_WAS = "# was: "
_FACTS = re.compile(
    r"(?: \(made: (file)?(?:, (\d{1,2}) director(?:y|ies))?\))?( \(no line break before\))?\n"
)


@dataclass(frozen=True, slots=True)
class Made:
    """What was made for a block: the file itself, and so many directories above it."""

    file: bool = False
    dirs: int = 0


def lines_of(text: str) -> list[str]:
    """Lines with their line breaks; only \\n is one (TOML has no other)."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def insert(lines: list[str], at: int, block: list[str], *, replaces: int = 0, made: Made = Made()) -> str:
    """The text with `block` before line `at`, standing for the next `replaces` lines."""
    was = lines[at : at + replaces]
    is_unended = bool(lines) and not lines[-1].endswith("\n") and at + replaces == len(lines)
    before = lines[:at]
    if is_unended and not replaces:
        before[-1] += "\n"
    elif is_unended:
        was[-1] += "\n"
    facts = ""
    if made.file:
        noun = "directory" if made.dirs == 1 else "directories"
        facts = f" (made: file, {made.dirs} {noun})" if made.dirs else " (made: file)"
    facts += " (no line break before)" if is_unended else ""
    ours = [f"{_BEGIN}{facts}\n", *(_WAS + line for line in was), *(f"{line}\n" for line in block), _END]
    return "".join(before + ours + lines[at + replaces :])


def append(text: str, block: list[str], *, made: Made = Made()) -> str:
    lines = lines_of(text)
    return insert(lines, len(lines), block, made=made)


def strip(text: str, path: str) -> tuple[str, Made | None]:
    """The text without our blocks, and what was made for them; (`text`, None) where there is none.

    Raises ConfigError where a block has lost its end; `path` is for that.
    """
    lines, kept, made = lines_of(text), list[str](), None
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.startswith(_BEGIN):
            kept.append(line)
            at += 1
            continue
        facts = _FACTS.fullmatch(line.removeprefix(_BEGIN))
        end = next((n for n in range(at, len(lines)) if lines[n].rstrip("\n") == _END.rstrip("\n")), None)
        if facts is None or end is None:
            raise ConfigError(
                f"{path}: p2pd's block is damaged: take out its lines by hand, "
                'from "# >>> p2pd" to "# <<< p2pd"'
            )
        kept += [inner.removeprefix(_WAS) for inner in lines[at:end] if inner.startswith(_WAS)]
        if facts[3] and kept and end + 1 == len(lines):
            kept[-1] = kept[-1].removesuffix("\n")
        found = Made(facts[1] is not None, int(facts[2] or 0))
        made = Made(found.file or (made or found).file, max(found.dirs, (made or found).dirs))
        at = end + 1
    return "".join(kept), made
