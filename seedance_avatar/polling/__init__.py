"""Decides when to poll each pending item again: fixed intervals, or a learned schedule. Pure."""
