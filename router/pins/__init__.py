"""Pins carried from one process to another."""
