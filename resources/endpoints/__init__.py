"""Where models are served, one file per kind of target."""
