"""The wire. This file makes `proto` ours where proto-plus, another `proto`, is installed."""
