"""Render a role's templates with Ansible's own templating, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

init_plugin_loader()

ROLES = Path(__file__).resolve().parents[2] / "roles"


def render(role: str, template: str, **variables: Any) -> str:
    """The text that the template of the role becomes, with the role's defaults and vars beneath the variables."""
    path = ROLES / role / "templates" / template
    text: str = _templar(role, variables).template(
        trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{path}') }}}}")
    )
    return text


def value(role: str, variable: str, **variables: Any) -> Any:
    """What a variable of the role comes to, with the role's defaults and vars beneath the variables."""
    return _templar(role, variables).template(trust_as_template(f"{{{{ {variable} }}}}"))


def _templar(role: str, variables: dict[str, Any]) -> Templar:
    known: dict[str, Any] = {"ansible_managed": "Ansible managed", "role_path": str(ROLES / role)}
    for part in ("defaults", "vars"):
        path = ROLES / role / part / "main.yml"
        if path.exists():
            known |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return Templar(loader=DataLoader(), variables=_trusted(known | variables))


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trusted(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_trusted(entry) for entry in value]
    return value
