"""Code that a model wrote, run where it can do no harm: walls.py makes the place, inside.py is what runs in it."""
