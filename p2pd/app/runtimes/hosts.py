"""hosts.toml: one file of containerd's for each registry (or for all the others, `_default`).

containerd asks the hosts in the order of the file, then `server`, else the registry itself; so what
is written here always leaves the way to the registry open. The lookup follows containerd 1.6 to 2.x
(core/remotes/docker/config: hostPaths, HostDirFromRoot).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pd.app.runtimes.draft import Draft, Mirror, Plan, Route
from p2pd.app.runtimes.marks import Made, append, insert, lines_of, strip
from p2pd.app.runtimes.toml_text import header_of, quoted, read_toml
from p2pd.model.errors import ConfigError
from p2pd.model.upstream import UpstreamSpec

__all__ = ["install_hosts", "remove_hosts"]

_CERTIFICATES = (".crt", ".cert", ".key")


def install_hosts(draft: Draft, roots: Sequence[str], mirror: Mirror, plan: Plan) -> None:
    """Lead each registry to the mirror, in its own file or in that which others wrote for it."""
    done = set[str]()
    for spec in mirror.upstreams:
        directory = _directory_of(draft, roots, spec.registry)
        path = f"{directory}/hosts.toml"
        try:
            how = "with others" if path in done else _install(draft, path, mirror, spec)
        except ConfigError as error:
            plan.refusals.append(str(error))
            continue
        done.add(path)
        plan.routes.append(Route(spec.registry, path, how))


def remove_hosts(draft: Draft, roots: Sequence[str]) -> None:
    """Take our blocks out of every hosts.toml below `roots`, with the files and directories made for them."""
    emptied = list[tuple[str, int]]()
    for path in _hosts_files(draft, roots):
        text = draft.read(path)
        if text is None:
            continue
        rest, made = strip(text, path)
        if made is None:
            continue
        is_ours = made.file and not rest.strip()
        draft.write(path, None if is_ours else rest)
        if is_ours:
            emptied.append((path, made.dirs))
    draft.remove_empty_dirs(emptied)


def _hosts_files(draft: Draft, roots: Sequence[str]) -> Iterator[str]:
    for root in roots:
        for name in draft.entries(root) or ():
            yield f"{root}/{name}/hosts.toml"


def _directory_of(draft: Draft, roots: Sequence[str], registry: str) -> str:
    """The directory that containerd reads for a registry; a new one where it would find none."""
    host, colon, port = registry.rpartition(":")
    names = [f"{host}_{port}_"] if colon else []
    names += [registry, "_default"]
    for root in roots:
        for name in names:
            entries = draft.entries(f"{root}/{name}")
            if entries is None:
                continue
            if name == "_default" and "hosts.toml" not in entries:
                return f"{root}/{registry}"
            return f"{root}/{name}"
    return f"{roots[0]}/{registry}"


def _install(draft: Draft, path: str, mirror: Mirror, spec: UpstreamSpec) -> str:
    """Write one file; how the registry comes to the mirror now. Raises ConfigError."""
    text = draft.read(path)
    if text is not None:
        return _join(draft, path, text, mirror)
    directory = path.rpartition("/")[0]
    if any(name.endswith(_CERTIFICATES) for name in draft.entries(directory) or ()):
        raise ConfigError(
            f"{directory} holds certificates, which count only as long as there is no hosts.toml: write "
            f"{path} yourself, with ca and client, then run this again"
        )
    block = [f"server = {quoted(spec.url)}"]
    if spec.ca_file:
        block.append(f"ca = {quoted(spec.ca_file)}")
    block += ["", *_host(mirror)]
    draft.write(path, append("", block, made=Made(True, draft.missing_dirs(path))))
    return "own file"


def _host(mirror: Mirror) -> list[str]:
    # No skip_verify on plain http: containerd 2.x would try HTTPS first.
    return [f'[host."{mirror.url}"]', 'capabilities = ["pull", "resolve"]']


def _join(draft: Draft, path: str, text: str, mirror: Mirror) -> str:
    """Put the mirror in front of the hosts that others wrote; raises ConfigError where that is not safe."""
    before = read_toml(text, path)
    hosts = before.get("host", {})
    if not isinstance(hosts, dict):
        raise ConfigError(f"{path}: host is not a table; mend it first")
    if mirror.url in hosts:
        return "written by others"
    lines = lines_of(text)
    at = next((n for n, line in enumerate(lines) if (header_of(line) or ("",))[0] == "host"), len(lines))
    while at and at < len(lines) and lines[at - 1].lstrip().startswith("#"):
        at -= 1  # a comment above a table belongs to it
    after_text = insert(lines, at, _host(mirror))
    try:
        after = read_toml(after_text, path)
        order = list(after["host"])
    except (ConfigError, KeyError, TypeError):
        order = []
    if order != [mirror.url, *hosts] or {k: v for k, v in after.items() if k != "host"} != {
        k: v for k, v in before.items() if k != "host"
    }:
        raise ConfigError(
            f"{path} is written by others in a way that p2pd cannot edit safely: put "
            f'[host."{mirror.url}"] with capabilities = ["pull", "resolve"] before its hosts yourself'
        )
    draft.write(path, after_text, keep=True)
    return "in front of others' hosts"
