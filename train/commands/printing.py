"""How commands print a result."""


def print_table(values: dict) -> None:
    """One value a line."""
    for name, value in values.items():
        print(f"{name:14} {_to_text(value)}", flush=True)


def _to_text(value) -> str:
    if value is None:
        return "none: no class has one"
    if isinstance(value, float):
        return f"{value:.4f}"
    return ", ".join(value) if isinstance(value, list) else str(value)
