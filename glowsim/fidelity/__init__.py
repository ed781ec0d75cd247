"""Fidelity: what the simulator foretells of real model servers, and what these then do.

``python -m glowsim.fidelity`` starts llama.cpp's server and ``transformers serve`` on models that it makes on the spot,
calibrates the simulated world on half of the loads, writes its predictions down, measures the other half and a set of
policies behind ``glowsim serve``, and publishes the errors. It needs the extra ``fidelity``.
"""
