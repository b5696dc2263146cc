"""Tests of single documents: blind, with a model, and under other systems' formats."""
