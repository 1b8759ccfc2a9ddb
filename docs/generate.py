"""Write the parts of the documentation that follow from the code: `make docs`. `--check` only compares.

- docs/reference/chromactl.md: commands and options, from the command line's own definitions.
- roles/*/README.md: the table of variables, between the two marker lines, from meta/argument_specs.yml.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from chromactl.cli import cli

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- variables: made by `make docs` from meta/argument_specs.yml -->"
END = "<!-- end of variables -->"


def chromactl_reference() -> str:
    """All commands with their options, as Markdown."""
    context = click.Context(cli, info_name="chromactl")
    lines = [
        "# chromactl: commands and options",
        "",
        "Made by `make docs` from the command line's own definitions.",
        "",
    ]
    lines += [_unwrapped(cli.help or ""), ""]
    for name, command in _commands(cli, context):
        lines += [f"## chromactl {name}", "", _unwrapped(command.help or ""), ""]
        lines += ["| option | environment | default | meaning |", "|---|---|---|---|"]
        options = [entry for entry in command.params if isinstance(entry, click.Option)]
        lines += [_option_row(entry) for entry in options if entry.help and entry.envvar]
        lines.append("")
    return "\n".join(lines)


def _commands(group: click.Group, context: click.Context, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands with their full names; of a group, its own."""
    for name in group.list_commands(context):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, context, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _option_row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    shown = "required" if option.required else ""
    if option.show_default and not option.required:
        shown = f"`{option.default}`"
    return f"| {names} | `{option.envvar}` | {shown} | {option.help} |"


def role_readme(role: Path) -> str:
    """The role's README with its table of variables made anew."""
    text = (role / "README.md").read_text(encoding="utf-8")
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    options: dict[str, Any] = {}
    for spec in specs.values():
        options |= spec.get("options", {})
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    rows += [_variable_row(name, option) for name, option in options.items()]
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}{after}"


def _variable_row(name: str, option: dict[str, Any]) -> str:
    default = "required" if option.get("required") else f"`{option.get('default', '')!r}`".replace("|", "\\|")
    if not option.get("required") and "default" not in option:
        default = ""
    words = option.get("description", "")
    text = " ".join(" ".join(words if isinstance(words, list) else [words]).split()).replace("|", "\\|")
    return f"| `{name}` | {option.get('type', 'str')} | {default} | {text} |"


def pages() -> dict[Path, str]:
    """Every generated page and what it should hold."""
    made = {ROOT / "docs/reference/chromactl.md": chromactl_reference()}
    for role in sorted((ROOT / "roles").iterdir()):
        if (role / "meta/argument_specs.yml").exists():
            made[role / "README.md"] = role_readme(role)
    return made


def main() -> int:
    """Write the pages, or with --check say which are out of date (exit code 1)."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
        sys.stderr.write(f"{'out of date, run make docs' if '--check' in sys.argv else 'written'}: {path}\n")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
