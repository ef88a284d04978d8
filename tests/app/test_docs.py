"""The documents tell the truth: their configurations are valid, whole and at the real defaults."""

from __future__ import annotations

import dataclasses
import itertools
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from p2pd.app.commands import make_app
from p2pd.app.commands.output import EXIT_CODES
from p2pd.app.config import NodeConfig
from p2pd.app.metrics import DaemonMetrics, Metrics
from p2pd.app.settings import parse
from seeder.commands import make_app as make_seeder_app
from seeder.config import SeederConfig
from seeder.metrics import SeederMetrics

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]

SOURCES = "".join(
    path.read_text() for package in ("p2pd", "seeder") for path in (ROOT / package).rglob("*.py")
)

OURS: dict[str, type] = {"/etc/p2pd/p2pd.toml": NodeConfig, "/etc/p2pd/seeder.toml": SeederConfig}


@dataclasses.dataclass(frozen=True)
class Block:
    """A TOML block of a document; its first line is a comment that begins with the file's path."""

    place: str
    title: str
    text: str

    @property
    def path(self) -> str:
        return re.split(r"[:\s]", self.title)[0]


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            title = match[1].partition("\n")[0].removeprefix("# ")
            found.append(Block(f"{document.name}:{line}", title, match[1]))
    return found


BLOCKS = blocks()


def test_there_are_blocks_of_every_kind() -> None:
    assert {block.path for block in BLOCKS} >= {
        *OURS,
        "/etc/containerd/config.toml",
        "/etc/containerd/certs.d/_default/hosts.toml",
        "/etc/containers/registries.conf.d/p2pd.conf",
    }


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_toml_block_is_valid(block: Block) -> None:
    document = tomllib.loads(block.text)
    mirror = str(NodeConfig().mirror.listen)
    if block.path in OURS:
        parse(block.text.encode(), OURS[block.path], block.place)
    elif block.path.endswith("/hosts.toml"):
        [(host, table)] = document["host"].items()
        assert host == f"http://{mirror}"
        assert table == {"capabilities": ["pull", "resolve"]}
    elif block.path == "/etc/containerd/config.toml":
        [plugin] = document["plugins"].values()
        assert plugin["registry"] == {"config_path": "/etc/containerd/certs.d"}
    else:
        assert block.path == "/etc/containers/registries.conf.d/p2pd.conf", "a block says what file it is"
        [registry] = document["registry"]
        assert registry["mirror"] == [{"location": f"{mirror}/{registry['location']}", "insecure": True}]


def test_the_configuration_page_is_what_the_program_makes() -> None:
    made = runpy.run_path(str(ROOT / "packaging" / "configuration.py"))["text"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == made, "run make docs"


@pytest.mark.parametrize(("title", "metrics"), [("Node", Metrics()), ("Seeder", SeederMetrics())])
def test_every_metric_is_documented_and_every_documented_metric_exists(
    title: str, metrics: DaemonMetrics
) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(p2pd_\w+)(?:\{([a-z,]+)\})?` \|", section_of(page, title), re.MULTILINE)
    assert dict(rows) == dict(described(metrics))
    assert len(rows) == len(dict(rows))


def section_of(page: str, title: str) -> str:
    return page.partition(f"## {title}\n")[2].partition("\n## ")[0]


def described(metrics: DaemonMetrics) -> Iterator[tuple[str, str]]:
    """Name and labels of each metric, as the document writes them."""
    for collector in set(metrics.registry._collector_to_names):
        for family in collector.collect():
            if family.name.startswith("p2pd_"):
                labels = ",".join(getattr(collector, "_labelnames", ()))
                yield f"{family.name}_total" if family.type == "counter" else family.name, labels


def keys() -> Iterator[str]:
    """`section.key` of both configurations."""
    for config in (NodeConfig(), SeederConfig()):
        for field in dataclasses.fields(config):
            section = getattr(config, field.name)
            if dataclasses.is_dataclass(section):
                yield from (f"{field.name}.{key.name}" for key in dataclasses.fields(section))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_key_event_and_metric_that_is_named_exists(document: Path) -> None:
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)?)`", document.read_text()))
    known = set(keys()) | {name for each in (Metrics(), SeederMetrics()) for name, _ in described(each)}
    sections = {key.partition(".")[0] for key in keys()}
    checked = {name for name in named if name.partition(".")[0] in sections and "." in name}
    checked |= {name for name in named if name.startswith("p2pd_")}
    unknown = {name for name in checked - known if f'"{name}"' not in SOURCES and name != "seeder.toml"}
    assert unknown == set()


def test_no_creation_times_are_shown() -> None:
    metrics = Metrics()
    metrics.answered("blob", 200, 0.1, None)
    assert b"_created" not in metrics.render()


def test_documented_log_lines_are_written_somewhere() -> None:
    lines = (ROOT / "docs" / "operating.md").read_text().partition("## Log lines")[2].splitlines()
    events = [
        event
        for line in lines
        if line.startswith("| `")
        for event in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert len(events) > 15
    assert [event for event in events if f'"{event}"' not in SOURCES] == []


def names(app: typer.Typer, program: str) -> set[str]:
    commands = {f"{program} {info.name}" for info in app.registered_commands}
    return commands | {f"{program} {group.name}" for group in app.registered_groups}


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    told = set(re.findall(r"^\| `(p2pd(?:-seeder)? [a-z]+)` \|", page, re.MULTILINE))
    assert told == names(make_app(), "p2pd") | names(make_seeder_app(), "p2pd-seeder")


def calls() -> Iterator[tuple[str, list[str]]]:
    """Each call of our programs in running text or in a block, its alternatives (`a|b`) written out."""
    for document in DOCUMENTS:
        text = document.read_text()
        lines = re.findall(r"`(p2pd(?:-seeder)? [^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", text))
        for kind, prompt in (("sh", "(?:/opt/p2pd/bin/)?"), ("console", r"\$ ")):
            listed = "".join(re.findall(rf"(?ms)^```{kind}\n(.*?)^```$", text))
            lines += re.findall(rf"(?m)^{prompt}(p2pd(?:-seeder)? .*)$", listed)
        for line in lines:
            words = [word.split("|") for word in shlex.split(line, comments=True) if word != "…"]
            yield from ((document.name, list(each)) for each in itertools.product(*words))


CALLS = sorted({(place, tuple(words)) for place, words in calls()})


def test_there_are_calls_of_both_programs() -> None:
    assert len(CALLS) > 40
    assert {words[0] for _, words in CALLS} == {"p2pd", "p2pd-seeder"}


@pytest.mark.parametrize(("place", "words"), CALLS)
def test_every_call_is_one_that_the_program_takes(place: str, words: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(make_app() if words[0] == "p2pd" else make_seeder_app())
    left = list(words[1:])
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        assert left[0] in command.commands, place
        command = command.commands[left.pop(0)]
    if hasattr(command, "commands"):  # an option of the program, or a group that is only named
        assert set(left[:1]) <= {option for parameter in command.params for option in parameter.opts}
        return
    try:
        command.make_context(words[0], left)
    except typer.TyperException as error:
        if type(error).__name__ != "MissingParameter":  # a command may be named without what it needs
            pytest.fail(f"{place}: {error.format_message()}")


def test_every_request_is_one_that_the_api_has() -> None:
    asked = set(re.findall(r"http://localhost(/v1/[\w./]+)", (ROOT / "docs" / "cli.md").read_text()))
    source = (ROOT / "p2pd/app/admin.py").read_text() + (ROOT / "p2pd/app/admin_http.py").read_text()
    assert len(asked) >= 3
    assert [path for path in asked if f'"{path}"' not in source] == []


def test_no_block_is_of_a_kind_that_nothing_checks() -> None:
    kinds = {
        kind
        for document in DOCUMENTS
        for kind in re.findall(r"(?ms)^```(\w*)\n.*?^```$", document.read_text())
    }
    # json: test_clients_page.py, ini: system/test_deb.py, yaml: system/test_prometheus.py; without: drawings
    assert kinds == {"", "toml", "sh", "console", "json", "ini", "yaml"}


def test_the_exit_statuses_are_those_of_the_help() -> None:
    page = (ROOT / "docs" / "cli.md").read_text().partition("## Exit status")[2].partition("##")[0]
    told = re.findall(r"^\| ([0-9]+) \|", page, re.MULTILINE)
    assert told == re.findall(r"\b([0-9]+)\b", EXIT_CODES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_source_files_exist(document: Path) -> None:
    text = document.read_text()
    targets = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)#][^)]*)\)", text)]
    assert [target for target in targets if not (document.parent / target).exists()] == []
    files = re.findall(r"`((?:p2pd|seeder|benchmarks|tests|packaging)/[\w/.]+)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[><=]", line)[0] for line in project["dependencies"]]
    assert len(names) >= 10
    assert [name for name in names if f"| {name} |" not in page] == []
