"""The controllers that ship with glowsim: one folder a family, one class a file."""
