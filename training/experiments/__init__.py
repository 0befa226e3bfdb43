"""What is found out about the models; each result is kept as JSON in docs/results/."""
