"""Manual pages and shell completion, made from the command line and the configuration themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from p2pd.app.reference import SectionReference, reference

Option = tuple[str, str]


def command_page(app: typer.Typer, name: str, date: str, version: str, see_also: str) -> str:
    """The page of a program in section 1: each command with its options, as its --help has them."""
    root = typer.main.get_command(app)
    about = _sentence(root.help or "")
    lines = [_head(name, 1, date, version), ".SH NAME", rf"{name} \- {_plain(about[0].lower() + about[1:])}"]
    lines += [".SH SYNOPSIS", f".B {name}", r".I COMMAND", r"[\fIOPTION\fR]..."]
    lines += [".SH DESCRIPTION", *_paragraphs(root.help or "")]
    lines += [".SH COMMANDS"]
    for words, command in _commands(root, ()):
        lines += _command(words, command)
    epilog = root.epilog or ""
    lines += [".SH NOTES", *_paragraphs(epilog)] if epilog else []
    return "\n".join([*lines, ".SH SEE ALSO", _references(see_also)]) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, depth first, with the words that call it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name in children:
        if not children[name].hidden:
            yield from _commands(children[name], (*words, name))


def _command(words: tuple[str, ...], command: Any) -> list[str]:
    with command.make_context(words[-1], [], resilient_parsing=True) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        records = [record for each in command.params if (record := each.get_help_record(context))]
    lines = [".SS", rf"\fB{_plain(' '.join(words))}\fR {_plain(usage)}", *_paragraphs(command.help or "")]
    for names, meaning in records:
        lines += [".TP", rf"\fB{_plain(names)}\fR", _plain(meaning)]
    return lines


def configuration_page(cls: type[Any], name: str, path: str, date: str, version: str, see_also: str) -> str:
    """The page of a configuration file in section 5: every key, what it may be, its default."""
    lines = [_head(name, 5, date, version), ".SH NAME", rf"{name} \- configuration of p2pd"]
    lines += [".SH SYNOPSIS", _plain(path), ".SH DESCRIPTION"]
    lines += _paragraphs("A TOML file. Every key may be left out; a wrong or unknown one is refused by name.")
    for section in reference(cls):
        lines += _section(section)
    return "\n".join([*lines, ".SH FILES", _plain(path), ".SH SEE ALSO", _references(see_also)]) + "\n"


def _section(section: SectionReference) -> list[str]:
    lines = [f".SH [{_plain(section.name)}]", *_paragraphs(section.meaning)]
    for key in section.keys:
        default = "required" if key.default is None else f"default {key.default}"
        lines += [".TP", rf"\fB{_plain(key.name)}\fR: {_plain(key.allowed)}; {_plain(default)}"]
        lines += [_plain(key.meaning)]
    return lines


def bash_completion(name: str) -> str:
    function = f"_{name.replace('-', '_')}_completion"
    words = 'COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD"'
    return (
        f"{function}() {{\n"
        "    local IFS=$'\\n'\n"
        f"    COMPREPLY=($({words} {_variable(name)}=complete_bash {name}))\n"
        "}\n"
        f"complete -o default -F {function} {name}\n"
    )


def zsh_completion(name: str) -> str:
    """For a directory of $fpath, where the file is the function itself."""
    ask = f'env _TYPER_COMPLETE_ARGS="${{words[1,$CURRENT]}}" {_variable(name)}=complete_zsh {name}'
    return f'#compdef {name}\neval "$({ask})"\n'


def _variable(name: str) -> str:
    return f"_{name.upper().replace('-', '_')}_COMPLETE"


def _head(name: str, section: int, date: str, version: str) -> str:
    return f'.TH "{name.upper()}" {section} "{date}" "p2pd {version}" "p2pd"'


def _references(pages: str) -> str:
    """`p2pd(1) containerd(8)` in the usual dress."""
    return ", ".join(
        rf"\fB{_plain(page)}\fR({section})" for page, section in re.findall(r"(\S+)\((\d)\)", pages)
    )


def _sentence(text: str) -> str:
    return re.split(r"[.:](?:\s|$)", " ".join(text.split()))[0]


def _paragraphs(text: str) -> list[str]:
    paragraphs = [
        " ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n|\f", text) if paragraph.strip()
    ]
    return [line for paragraph in paragraphs for line in (".PP", _plain(paragraph))]


def _plain(text: str) -> str:
    """Text that troff sets as it is: no control lines, no escapes, hyphens that can be copied."""
    text = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text
