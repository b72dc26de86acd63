"""Tasks that other packages bring."""
