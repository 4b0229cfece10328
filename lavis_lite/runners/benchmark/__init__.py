"""Benchmarks of a piece of work: seconds, memory, operations, and the machine's peak rate.

timing.py      runs taken in turns, their median and spread
memory.py      the most memory that a run holds
operations.py  floating-point operations of a run, attention and backward pass included
machine.py     what rate this machine multiplies matrices at
agreement.py   whether two ways of doing the same work come to the same
"""
