"""Proofs that are too large for a test: ``python -m tests.proof kills --count 200`` and its like.

The suite runs each of them in a small size (``tests/public/test_trust_proof.py``).
"""
