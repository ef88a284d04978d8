"""Docker Engine: `registry-mirrors` in daemon.json.

It asks mirrors for Docker Hub only, and does not name the registry. JSON has no comments, so the
mirror's own URL is the mark: it is put in first, in one fixed spelling, and taken out again. A mirror
of plain HTTP needs no insecure-registries where its URL says http:// or it is on loopback.
"""

from __future__ import annotations

import json

from p2pd.app.runtimes.draft import Draft, Files, Mirror, Plan, Route
from p2pd.app.runtimes.json_text import Member, members, read_object
from p2pd.model.errors import ConfigError
from p2pd.model.reference import DOCKER_HUB

__all__ = ["CONFIG", "install", "remove"]

CONFIG = "/etc/docker/daemon.json"

_KEY = "registry-mirrors"
_FLAG = "--registry-mirror"
_UNITS = ("/etc/systemd/system/docker.service.d", "/etc/systemd/system", "/lib/systemd/system")
_RELOAD = ("systemctl", "reload", "docker")


def install(files: Files, mirror: Mirror) -> Plan:
    """What leads Docker's pulls to the mirror. Raises ConfigError for a file that cannot be read."""
    draft, plan = Draft(files), Plan()
    plan.refusals += _obstacles(draft, mirror)
    if plan.refusals:
        return plan
    text = draft.read(CONFIG)
    plan.routes.append(Route(DOCKER_HUB, CONFIG, "registry-mirrors"))
    left = [spec.registry for spec in mirror.upstreams if spec.registry != DOCKER_HUB]
    if left:
        plan.notes.append(
            f"Docker uses mirrors for docker.io alone; {', '.join(left)} go to their registries"
        )
    if text is None:
        draft.write(CONFIG, _fresh(mirror))
    elif mirror.url not in _mirrors(text):
        draft.write(CONFIG, _with(text, mirror), keep=True)
    return _finish(draft, plan)


def remove(files: Files, mirror: Mirror) -> Plan:
    """What takes the mirror out again. Raises ConfigError for a file that cannot be read."""
    draft = Draft(files)
    text = draft.read(CONFIG)
    if text == _fresh(mirror):
        draft.write(CONFIG, None)
    elif text is not None and mirror.url in _mirrors(text):
        draft.write(CONFIG, _without(text, mirror))
    return _finish(draft, Plan())


def _finish(draft: Draft, plan: Plan) -> Plan:
    plan.changes = draft.changes()
    if plan.changes:
        plan.reload = _RELOAD
    return plan


def _obstacles(draft: Draft, mirror: Mirror) -> list[str]:
    found = []
    if DOCKER_HUB not in {spec.registry for spec in mirror.upstreams}:
        found.append(
            "Docker uses mirrors for docker.io alone, and [upstreams] has no docker.io: nothing to do"
        )
    elif mirror.default_registry != DOCKER_HUB:
        found.append(
            "Docker does not name the registry it means, and mirror.default_registry is "
            f"{mirror.default_registry}: set it to docker.io first"
        )
    for directory in _UNITS:
        for name in draft.entries(directory) or ():
            path = f"{directory}/{name}"
            is_unit = name == "docker.service" or (directory == _UNITS[0] and name.endswith(".conf"))
            if is_unit and _FLAG in (draft.read(path) or ""):
                found.append(
                    f"{path} passes {_FLAG}, and dockerd does not start when daemon.json has it too: "
                    f"add {_FLAG}={mirror.url} there instead"
                )
    return found


def _fresh(mirror: Mirror) -> str:
    # The tab tells it from whatever `_with` makes of a file that was there.
    return f'{{\n\t"{_KEY}": ["{mirror.url}"]\n}}\n'


def _from_blank(mirror: Mirror) -> str:
    return f'{{"{_KEY}":["{mirror.url}"]}}'


def _mirrors(text: str) -> list[str]:
    """Without the slash at the end that Docker does not care for. Raises ConfigError."""
    if not text.strip():
        return []
    found = read_object(text, CONFIG).get(_KEY, [])
    if not isinstance(found, list):
        raise ConfigError(f"{CONFIG}: {_KEY} is not a list; mend it first")
    return [str(each).rstrip("/") for each in found]


def _list_of(text: str) -> Member | None:
    return next((member for member in reversed(members(text)) if member.name == _KEY), None)


def _first_member(mirror: Mirror, *, is_only: bool) -> str:
    return f'\n  "{_KEY}": ["{mirror.url}"]' + ("\n" if is_only else ",")


def _with(text: str, mirror: Mirror) -> str:
    if not text.strip():
        return _from_blank(mirror) + text
    found = _list_of(text)
    if found is None:
        at = text.index("{") + 1
        return text[:at] + _first_member(mirror, is_only=not members(text)) + text[at:]
    inserted = f'"{mirror.url}", ' if found.value else f' "{mirror.url}" '
    return text[: found.start + 1] + inserted + text[found.start + 1 :]


def _without(text: str, mirror: Mirror) -> str:
    """The inverse of `_with`; where others changed the spelling since, the list is written anew."""
    blank = _from_blank(mirror)
    if text.startswith(blank) and not text.removeprefix(blank).strip():
        return text.removeprefix(blank)
    at = text.index("{") + 1
    for inserted in (_first_member(mirror, is_only=False), _first_member(mirror, is_only=True)):
        if text.startswith(inserted, at):
            return text[:at] + text[at + len(inserted) :]
    found = _list_of(text)
    if found is None:
        return text
    inside = found.start + 1
    for inserted in (f'"{mirror.url}", ', f' "{mirror.url}" '):
        if text.startswith(inserted, inside):
            return text[:inside] + text[inside + len(inserted) :]
    rest = [each for each in found.value if str(each).rstrip("/") != mirror.url]
    return text[: found.start] + json.dumps(rest) + text[found.end :]
