"""One rented machine: send a run there, watch it, bring its results home, and see that the machine stops.

Two kinds of files. `supervisor`, `watchdog`, `states`, `seals` and `onpod` run on the pod, on any Python and
without a package installed; the others run at home.
"""

API_URL = "https://rest.runpod.io/v1"
AGENT = "moola"  # urllib's own name is turned away at the API's door
