"""What a model is called: `name:3` is version 3 in the registry, and never version 3 of a definition."""

from __future__ import annotations

from playbill.errors import ConfigError


def definition_reference(model: str, definition: int | None, command: str) -> str:
    """Return what the zoo calls the definition that a command reads.

    Args:
        model: As given; a registered version is refused.
        definition: Version of the definition, None = the newest.
        command: Its name, such as `train`.

    Raises:
        ConfigError: The model is written as a registered version.
    """
    name, mark, version = model.partition("@" if "@" in model else ":")
    if mark:
        number = version if version.isdigit() else "2"
        raise ConfigError(
            f"'{model}' names a registered version, and `playbill {command}` reads a definition. Write "
            f"`playbill {command} {name}` for the newest definition, or "
            f"`playbill {command} {name} --definition {number}` for version {number} of it"
        )
    return name if definition is None else f"{name}:{definition}"


def registered_reference(model: str | None, version: int | None) -> tuple[str | None, int | None]:
    """Read `--model name:3` as `--model name --version 3`.

    Raises:
        ConfigError: The version is given twice, or is no number.
    """
    if model is None or not (set(model) & set(":@")):
        return model, version
    name, _, number = model.partition(":")
    if "@" in model or not number.isdigit() or int(number) == 0:
        raise ConfigError(f"'{model}' is no model or registered version, write name or name:3")
    if version is not None:
        raise ConfigError(f"--model {model} names a version already, leave --version out")
    return name, int(number)
