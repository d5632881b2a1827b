"""`mbt-train cost`: a model's cost, and the table and plot of Fig. 3 (right)."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from mbt.model.config import MBTConfig
from mbt.train import config as config_lib
from mbt.train.errors import UsageError

# Where a config leaves the number of classes to its dataset: AudioSet's.
CLASSES = 527
COLUMNS = {
    "fusion": "fusion",
    "fusion_layer": "L_f",
    "parameters": "parameters",
    "gmac": "GMAC",
    "product_gmac": "of products",
    "activation_mib": "activations, MiB",
    "cudnn_activation_mib": "with cuDNN",
}
STYLES = {"bottleneck": "o-", "cross_attention": "s-", "reference_cross_attention": "s--"}


def one(config_name: str, overrides: list[str]) -> list[dict]:
    """The cost of a config's model, as one row."""
    return [_row(_model(config_name, overrides))]


def sweep(config_name: str, overrides: list[str], plot: pathlib.Path | None) -> list[dict]:
    """Costs over L_f = 0, 2, ..., L: bottleneck, cross-attention, and the reference's cross-attention.

    Args:
      config_name: path or name of a config.
      overrides: `--config.KEY=VALUE` flags.
      plot: a PNG to draw, or None.

    Raises:
      UsageError: the config is wrong or has one modality, or there is no folder for the plot.
    """
    if plot and not plot.absolute().parent.is_dir():
        raise UsageError(f"--plot={plot}: there is no folder {plot.parent}; make it first")
    model = _model(config_name, overrides)
    if len(model.modalities) == 1:
        raise UsageError(f"--sweep=fusion_layer: {model.names[0]} alone has nothing to fuse; give two modalities")
    reference: list[dict] = []
    layers = range(0, model.size.depth + 1, 2)
    at = [dataclasses.replace(model, fusion_layer=layer) for layer in layers]
    rows = [_row(dataclasses.replace(config, fusion="bottleneck")) for config in at]
    for config in (dataclasses.replace(config, fusion="cross_attention") for config in at):
        rows.append(_row(config))
        reference.append(_reference_row(config, rows[-1]["product_gmac"]))
    rows += reference
    if plot:
        draw(rows, plot)
    return rows


def to_table(rows: list[dict]) -> str:
    """Rows as text."""
    lines = [list(COLUMNS.values())] + [[_to_text(row.get(key)) for key in COLUMNS] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    form = f"{{:<{first}}}" + "".join(f"  {{:>{width}}}" for width in others)
    return "\n".join(form.format(*line) for line in lines)


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """GMAC over L_f, a line for each strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    draw_lines(figure.subplots(), rows)
    figure.savefig(path, dpi=150, format="png")


def draw_lines(axes, rows: list[dict]) -> None:
    """GMAC over L_f on axes of matplotlib."""
    for fusion in dict.fromkeys(row["fusion"] for row in rows):
        line = [(row["fusion_layer"], row["product_gmac"]) for row in rows if row["fusion"] == fusion]
        axes.plot(*zip(*line, strict=True), STYLES[fusion], label=fusion.replace("_", " "))
    axes.set(xlabel="fusion layer", ylabel="GMAC of matrix products, forward, one clip", ylim=(0, None))
    axes.set_xticks(sorted({row["fusion_layer"] for row in rows}))
    axes.legend()


def _model(config_name: str, overrides: list[str]) -> MBTConfig:
    config = ConfigDict(config_lib.load_config(config_name, overrides))
    config.data.root = config.data.root or "none"  # no data is read
    config_lib.check(config)
    config.model.num_classes = config.model.num_classes or sum(config.model.head_sizes) or CLASSES
    return config_lib.model_config(config)


def _row(config: MBTConfig) -> dict:
    from mbt.model.cost import cost_of

    cost = cost_of(config)
    return {
        "fusion": config.fusion,
        "fusion_layer": config.fusion_layer,
        "parameters": cost.parameters,
        "gmac": cost.gmac,
        "product_gmac": cost.product_gmac,
        "activation_mib": cost.activation_bytes / 2**20,
        "cudnn_activation_mib": cost.cudnn_activation_bytes / 2**20,
    }


def _reference_row(config: MBTConfig, product_gmac: float) -> dict:
    from mbt.model.cost import reference_excess_gmac

    gmac = product_gmac + reference_excess_gmac(config)
    return {"fusion": "reference_cross_attention", "fusion_layer": config.fusion_layer, "product_gmac": gmac}


def _to_text(value) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
