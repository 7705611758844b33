"""Sections and pictures, which results give, as text tables, JSON and plots."""
