"""The seeds' script: the blocking face. Prints the three lines in this order.

python examples/script.py        or        python -m sage_actor run examples/script.py
"""

from sage_actor import LocalEnvironment

env = LocalEnvironment("hello-sage")
env.from_collection(["Hello", "World", "SAGE"]).map(lambda x: f"Processed: {x}").print()
env.submit()  # does not wait: the script's exit does, and its status says whether the job succeeded
