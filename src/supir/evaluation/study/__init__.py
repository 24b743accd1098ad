"""Which of two restored pictures do people prefer? The web page that asks them is ``supir.service.http.study``.

pictures   what is compared: a benchmark's results, or folders; their identity
database   the SQLite file: its tables, how it is begun
store      questions, participants and votes
report     preferences with their intervals
"""
