"""Images: files ⇄ pixels ⇄ packed patches. They know nothing of models.

Files are opened in a process of their own (``opening``), as ``settings`` say; ``patches`` cuts pixels into sequences.
"""
