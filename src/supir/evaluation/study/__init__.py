"""Which of two or more restored pictures do people prefer? The web page that asks them is ``supir.service.http.study``.

pictures   what is compared: a benchmark's results, or folders; their identity
store      the SQLite file: questions, participants and votes
report     preferences with their intervals
"""
