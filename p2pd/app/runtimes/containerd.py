"""containerd: `config_path` in its configuration, and the hosts.toml files below that.

Facts from containerd 1.6 to 2.x: the section that names the directory depends on the file's
version; of several files (`imports`) the last one that has the section counts, in 1.x wholly; the
older `mirrors` and `configs.*.tls` beside `config_path` keep CRI from starting at all. From 2.2 on it has a
default of two directories, but since 2.1 CRI's pulls take such a list as the name of one, which is not
there: so one directory is always written. hosts.toml is read at each pull, config.toml at the start.
"""

from __future__ import annotations

import copy
import fnmatch
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from p2pd.app.runtimes.draft import Draft, Files, Mirror, Plan
from p2pd.app.runtimes.hosts import install_hosts, remove_hosts
from p2pd.app.runtimes.marks import Made, append, insert, lines_of, strip
from p2pd.app.runtimes.toml_text import find_key, find_table, quoted, read_toml
from p2pd.model.errors import ConfigError

__all__ = ["CONFIG", "HOSTS", "install", "remove"]

CONFIG = "/etc/containerd/config.toml"
HOSTS = "/etc/containerd/certs.d"

_ONE_ROOT_SINCE = (2, 1)
_SECTIONS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.images"}
_RELOAD = ("systemctl", "restart", "containerd")
_FILES = 64


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    document: dict[str, Any]

    @property
    def section(self) -> str:
        """The plugin that has the registry's settings, in this file's version."""
        version = self.document.get("version", 1)
        return _SECTIONS[min(version, 3) if isinstance(version, int) and version > 0 else 1]

    def registry(self) -> dict[str, Any] | None:
        """The registry's settings here; None where the file does not have their plugin at all."""
        plugin = _table(self.document, "plugins").get(self.section)
        return _table(plugin, "registry") if isinstance(plugin, dict) else None


def install(files: Files, mirror: Mirror, version: tuple[int, int] | None = None) -> Plan:
    """What leads containerd's pulls to the mirror. `version` is containerd's, None where it is not known.

    Raises ConfigError for a file that cannot be read.
    """
    draft, plan = Draft(files), Plan()
    _strip(draft)
    roots = _roots(draft, plan, version)
    if not plan.refusals:
        install_hosts(draft, roots, mirror, plan)
    plan.notes.append("ctr reads the directory only when told: ctr images pull --hosts-dir " + roots[0])
    return _finish(draft, plan)


def remove(files: Files) -> Plan:
    """What takes the mirror out again. Raises ConfigError for a file that cannot be read."""
    draft = Draft(files)
    _strip(draft)
    return _finish(draft, Plan())


def _finish(draft: Draft, plan: Plan) -> Plan:
    plan.changes, plan.removed_dirs = draft.changes(), draft.removed_dirs()
    if any(not change.path.endswith("/hosts.toml") for change in plan.changes):
        plan.reload = _RELOAD
    return plan


def _strip(draft: Draft) -> None:
    """Take out all that is ours: the files of before, as long as others changed nothing."""
    found = list(_files(draft))
    roots = {HOSTS, *(root for file in found for root in _split(file.registry()))}
    remove_hosts(draft, sorted(root for root in roots if root.startswith("/")))
    for file in found:
        rest, made = strip(draft.read(file.path) or "", file.path)
        if made is not None:
            is_ours = made.file and not rest.strip()
            draft.write(file.path, None if is_ours else rest)
            if is_ours:
                draft.remove_empty_dirs([(file.path, made.dirs)])


def _roots(draft: Draft, plan: Plan, version: tuple[int, int] | None) -> tuple[str, ...]:
    """The directories of hosts files, written into the configuration where they are not there yet."""
    found = list(_files(draft))
    having = [file for file in found if file.registry() is not None]
    registry = (having[-1].registry() or {}) if having else {}
    named = next((roots for file in reversed(having) if (roots := _split(file.registry()))), ())
    _judge(plan, having[-1].path if having else CONFIG, registry, found)
    wanted = named or (HOSTS,)
    if len(named) > 1 and _takes_one_root(having[-1], version):
        wanted = named[:1]
        _judge_rest(plan, draft, having[-1].path, named)
    if _split(registry) != wanted and not plan.refusals:
        target = having[-1] if having else found[0] if found else None
        try:
            _set_config_path(draft, target, ":".join(wanted))
        except ConfigError as error:
            plan.refusals.append(str(error))
    return wanted


def _takes_one_root(file: _File, version: tuple[int, int] | None) -> bool:
    """Whether this containerd's CRI takes a list of directories as one; what is not known may be a 2.x."""
    plugin = _table(_table(file.document, "plugins"), file.section)
    if plugin.get("use_local_image_pull") is True:
        return False
    return version >= _ONE_ROOT_SINCE if version is not None else file.section == _SECTIONS[3]


def _judge_rest(plan: Plan, draft: Draft, path: str, roots: tuple[str, ...]) -> None:
    """Of several directories only the first is kept: refuse where others hold something."""
    used = [root for root in roots[1:] if draft.entries(root)]
    if used:
        plan.refusals.append(
            f"{path} has several directories in config_path, and since 2.1 its CRI takes the list as "
            f"one: move what is in {', '.join(used)} to {roots[0]}, then run this again"
        )


def _judge(plan: Plan, path: str, registry: dict[str, Any], found: list[_File]) -> None:
    """What keeps hosts files from being used."""
    if mirrors := _table(registry, "mirrors"):
        plan.refusals.append(
            f"{path} has registry.mirrors ({', '.join(sorted(mirrors))}), which excludes config_path: "
            f"move them to hosts.toml files below {HOSTS}, then run this again"
        )
    configs = _table(registry, "configs")
    if with_tls := sorted(name for name in configs if _table(configs, name).get("tls")):
        plan.refusals.append(
            f"{path} has registry.configs with tls ({', '.join(with_tls)}), which excludes config_path: "
            f"move them to hosts.toml files below {HOSTS}, then run this again"
        )
    for file in found:
        disabled = file.document.get("disabled_plugins", [])
        if isinstance(disabled, list) and {"cri", "io.containerd.grpc.v1.cri"} & {
            str(each) for each in disabled
        }:
            plan.notes.append(
                f"{file.path} disables the CRI plugin: no kubelet pulls through this containerd, "
                "but nerdctl reads the hosts files"
            )


def _set_config_path(draft: Draft, file: _File | None, value: str) -> None:
    """Write `config_path` into a file, as one block of ours; raises ConfigError where that is not safe."""
    setting = f"config_path = {quoted(value)}"
    if file is None:
        block = ["version = 2", "", f'[plugins."{_SECTIONS[2]}".registry]', setting]
        draft.write(CONFIG, append("", block, made=Made(True, draft.missing_dirs(CONFIG))))
        return
    text = draft.read(file.path) or ""
    header = f"[plugins.{quoted(file.section)}.registry]"
    lines = lines_of(text)
    table = find_table(lines, ("plugins", file.section, "registry"))
    if table is None:
        after = append(text, ["", header, setting])
    elif (at := find_key(lines, table, "config_path")) is not None:
        after = insert(lines, at, [setting], replaces=1)
    else:
        after = insert(lines, table + 1, [setting])
    if not _says(after, file, value):
        raise ConfigError(
            f"{file.path} is written in a way that p2pd cannot edit safely: "
            f"write {setting} into {header} yourself"
        )
    draft.write(file.path, after, keep=True)


def _says(text: str, file: _File, value: str) -> bool:
    """Is the text the file's document with that `config_path`, and nothing else changed?"""
    try:
        after = read_toml(text, file.path)
        plugin = after["plugins"][file.section]
        written = plugin["registry"].pop("config_path", None)
    except (ConfigError, KeyError, TypeError, AttributeError):
        return False
    before = copy.deepcopy(file.document)
    registry = _table(_table(_table(before, "plugins"), file.section), "registry")
    registry.pop("config_path", None)
    return bool(written == value and _pruned(after) == _pruned(before))


def _pruned(value: Any) -> Any:
    """Without empty tables, which a new header makes."""
    if not isinstance(value, dict):
        return value
    inner = {key: _pruned(each) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each != {}}


def _files(draft: Draft) -> Iterator[_File]:
    """The configuration and what it imports, in the order of reading. Raises ConfigError."""
    pending, seen = [CONFIG], set[str]()
    while pending and len(seen) < _FILES:
        path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = draft.read(path)
        if text is None:
            continue
        document = read_toml(text, path)
        yield _File(path, document)
        imports = document.get("imports", [])
        for each in imports if isinstance(imports, list) else []:
            if isinstance(each, str):
                pending += _expand(draft, posixpath.join(posixpath.dirname(path), each))


def _expand(draft: Draft, pattern: str) -> list[str]:
    """The files that an import means; a wildcard counts in the last part of a path."""
    directory, name = posixpath.split(posixpath.normpath(pattern))
    if "*" not in name:
        return [posixpath.join(directory, name)]
    return [
        f"{directory}/{each}" for each in draft.entries(directory) or () if fnmatch.fnmatchcase(each, name)
    ]


def _table(of: dict[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _split(registry: dict[str, Any] | None) -> tuple[str, ...]:
    value = (registry or {}).get("config_path")
    return tuple(filter(None, value.split(":"))) if isinstance(value, str) else ()
