"""Workstation half: the student model in torch, its training and its evaluation."""
