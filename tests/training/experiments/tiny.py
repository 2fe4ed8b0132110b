"""Settings of runs that take a second."""

TINY = {
    "dim": 8,
    "interests": 2,
    "hidden": 8,
    "negatives": 20,
    "epochs": 1,
    "history": 6,
    "pretrain_epochs": 0,
}
TINY_OPTIONS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
