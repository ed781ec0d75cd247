"""Operating characteristics of rollout policies: how often one rolls back a healthy version, how late a bad one.

- ``rules``: what a policy is to the simulation: looks, weights, decisions, over many campaigns at once.
- ``traffic``: requests and bad outcomes of both versions, with rhythm, incidents, late labels, sticky tenants.
- ``campaigns``: runs a rule against a traffic.
"""
