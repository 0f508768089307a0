"""Counts how bad input is answered: wrong options, damaged files and models, misuse from Python, kills, full disks.

``python -m tools.bad_input`` tries every kind and prints, by group, how many were tried and how many passed, and each
that did not. ``--long`` kills runs 200 times in place of 10.
"""
