"""Do two OpenAI-compatible servers give the same answers?

server.py   one of the two: what is sent to it, and what came back
checks.py   the questions, what each answer must look like, and how two of them compare
"""
