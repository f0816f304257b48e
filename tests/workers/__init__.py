"""Pauses, quarantine and the register of workers."""
