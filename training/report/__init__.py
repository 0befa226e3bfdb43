"""Pages and plots, made from stored results and model files."""
