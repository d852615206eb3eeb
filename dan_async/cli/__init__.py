"""The dan-async command: Typer and Rich (extra ``cli``); the one place that imports both client and devnet."""
