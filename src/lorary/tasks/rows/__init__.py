"""Rows of files and data sets -> examples, each with its place."""
