"""Helpers that several tests share. None of these modules holds a test."""
