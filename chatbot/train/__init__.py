"""Training by marginal likelihood: `loop` is shared, `commands` ties all together."""
