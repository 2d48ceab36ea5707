"""What the laboratory is for: experiments on the machine and on the techniques (design, section 6).

Read observe.py first: it says when two runs are equal, and everything else here rests on that.
"""
