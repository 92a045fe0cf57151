"""Hostile bodies, and the readers that an application may have: does the guard ever count fewer entries?"""
