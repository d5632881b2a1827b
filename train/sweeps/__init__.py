"""The paper's ablations: which models they train, how those are run, and the figure that is drawn of them."""
