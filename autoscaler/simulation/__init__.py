"""Simulation: the rules of the daemon over recorded load and virtual time."""
